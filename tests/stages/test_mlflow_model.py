"""What a bundle's MLflow Model tells about the machine that wrote it."""

from pathlib import Path

import mlflow.pyfunc
import pandas as pd

from switchyard.components.bundle import writer

MODEL = """
import mlflow
from mlflow.pyfunc import PythonModel


class Reads(PythonModel):
    def load_context(self, context):
        self.text = open(context.artifacts["bundle"] + "/a.txt").read()

    def predict(self, context, model_input, params=None):
        return [self.text] * len(model_input)


mlflow.models.set_model(Reads())
"""


def test_a_model_names_no_path_of_the_machine_that_wrote_it_and_loads_elsewhere(tmp_path):
    code, parts, folder = tmp_path / "mlflow_model.py", tmp_path / "parts", tmp_path / "model"
    code.write_text(MODEL)
    parts.mkdir()
    (parts / "a.txt").write_text("here")
    artifacts = {"bundle": parts.as_uri()}
    mlflow.pyfunc.save_model(str(folder), python_model=str(code), artifacts=artifacts, pip_requirements=["mlflow"])
    assert str(tmp_path) in (folder / "MLmodel").read_text()
    writer._without_places(folder)
    assert str(tmp_path) not in (folder / "MLmodel").read_text()
    elsewhere = Path(folder.rename(tmp_path / "elsewhere"))
    for path in (code, parts / "a.txt"):
        path.unlink()
    assert mlflow.pyfunc.load_model(str(elsewhere)).predict(pd.DataFrame({"x": [1, 2]})) == ["here", "here"]
