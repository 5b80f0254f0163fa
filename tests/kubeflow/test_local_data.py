"""Local data that travels with a pipeline keeps the folders that carry columns."""

import pytest

from switchyard.pipelines.config.pipeline import PipelineConfig
from switchyard.pipelines.runners.kubeflow.carried_files import carry
from switchyard.pipelines.runners.kubeflow.compiler.from_config import _data


@pytest.mark.parametrize("pattern", ["data", "data/*/*.csv", "data/**/*.csv"])
def test_files_of_a_folder_travel_with_the_folders_between(pattern, tmp_path):
    for region in ("01", "02"):
        (tmp_path / "data" / f"region={region}").mkdir(parents=True)
        (tmp_path / "data" / f"region={region}" / "d.csv").write_text("x,y\n1,0\n")
    config = PipelineConfig.model_validate({"name": "p", "label": "y", "data": {"path": str(tmp_path / pattern)}})
    files = {"data/region=01/d.csv", "data/region=02/d.csv"}
    assert carry(*_data(config, 1000)).replaced(f'["{tmp_path / pattern}"]', "ingest") == (f'["{{{{files}}}}/{pattern}"]', files)
