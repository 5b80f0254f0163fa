"""The private names of libraries that components/compat uses are unchanged in the installed versions."""

import hashlib
import importlib
import inspect
import pkgutil

import pytest

from switchyard.components import compat
from switchyard.components.compat.patch import Private
from switchyard.components.import_order import import_torch_first

pytestmark = pytest.mark.core
# These say how to treat a library, or hold no name of one.
OTHERS = {"patch", "python_exit", "fork_server"}
# Target -> the digest of its source. When a library changes one: compare old and new, mend the module of `compat` and its
# versions, then put here what the test says.
KNOWN = {
    "tfx.components.transform.executor:TransformProcessor._EncodeAndWrite": "72f94ad38ce2ce95",
    "tfx.components.transform.executor:Executor.Do": "4b3586458e6e98fe",
    "kfp.local.orchestrator.task_executor:execute_single_task": "ee78ffed032b5fdd",
    "kfp.local.subprocess_task_handler:run_local_subprocess": "4f82b209ba51fc9e",
    "kfp.local.docker_task_handler:run_docker_container": "63183d16a5ae3514",
    "kfp.local.pipeline_orchestrator:run_local_pipeline": "11699162659497fe",
    "apache_beam.transforms.core:get_function_args_defaults": "5e41a60ff81fe8ca",
    "apache_beam.options.pipeline_options:PipelineOptions.view_as": "3fd63693be9c56f3",
    "apache_beam.options.pipeline_options:PipelineOptions.__init__": "d51172d3bd0f03eb",
    "apache_beam.options.pipeline_options:PipelineOptions._visible_option_list": "a7edd7ce74aaef5f",
    "apache_beam.io.filesystem:FileSystem.match": "c7d7ea96bb768089",
    "apache_beam.io.localfilesystem:LocalFileSystem._list": "fa2064545c19f530",
    "mlflow.store.db.utils:_get_latest_schema_revision": "6501c5690661f13f",
    "mlflow.tracking._model_registry.utils:_get_store_registry": "64f7ecf69ffea77a",
    "uvicorn.protocols.http.httptools_impl:HttpToolsProtocol": "18fdf324b11bf160",
    "uvicorn.protocols.http.httptools_impl:RequestResponseCycle": "e67d470d435dcc1c",
    "uvicorn.server:Server.startup": "2aa1d70a244bfcf2",
    "tensorflow.python.saved_model.path_helpers:get_variables_path": "c6e6cb8e98168d4b",
    "tensorflow.python.lib.io._pywrap_file_io:GetMatchingFiles": "builtin_function_or_method",
    "tensorflow.python.lib.io.file_io:get_matching_files_v2": "3fe029a19bdcc08b",
    "tensorflow_data_validation.utils.quantiles_util:_get_bin_weights": "d16432bff3d22d6e",
    "tensorflow_data_validation.utils.quantiles_util:generate_equi_width_histogram": "c02059d1e960b335",
    "tensorflow_data_validation.statistics.generators.basic_stats_generator:_NUM_QUANTILES_FACTOR_FOR_STD_HISTOGRAM": "int",
    "tensorflow_data_validation.statistics.stats_impl:extract_statistics_output": "cf9e041a73230933",
    "tensorflow_data_validation.statistics.stats_impl:_get_default_generators": "968aa1c446b264d3",
    "tensorflow_data_validation.statistics.generators.basic_stats_generator:BasicStatsGenerator.__init__": "d8333134a802929c",
    "tensorflow_data_validation.statistics.generators.top_k_uniques_stats_generator:_ComputeTopKUniquesStats": "a68f25a62ed76f74",
    "tensorflow_data_validation.utils.top_k_uniques_stats_util:make_feature_stats_proto_topk_uniques": "ad8ed821a50afc94",
    "tensorflow_transform.graph_tools:retrieve_sources": "7ec1517d4b36907a",
    "tensorflow_transform.saved.saved_transform_io_v2:_get_output_to_inputs_map": "3e9305c6df1b7920",
    "tfx.orchestration.portable.cache_utils:get_cache_context": "3b8b587efcd72e0a",
    "tfx.dsl.components.base.base_beam_executor:BaseBeamExecutor._make_beam_pipeline": "36227afec0aece25",
    "tfx.dsl.components.base.base_component:BaseComponent._resolve_pip_dependencies": "93248d3992abf1b8",
    "tfx.dsl.components.base.base_component:BaseComponent.__init__": "bbac4740d328fab4",
    "tfx_bsl.tfxio.tf_example_record:TFExampleRecord.BeamSource": "447f572eefaf63c6",
    "tfx_bsl.tfxio.tf_example_record:TFExampleRecord.__init__": "0a8fe6ee21f756a0",
    "tfx_bsl.tfxio.tf_example_record:_TFExampleRecordBase._GetSchemaForDecoding": "d4cc2c89b83d43ec",
    "torch.export.pt2_archive._package:load_pt2": "3adc37177f0078c3",
    "torch.export:load": "4573a6110da0b430",
    "torch.export.exported_program:ExportedProgram.__init__": "12689c01a94a573a",
}
# In the versions of requirements.glibc239.lock: the same code in another format, with other docstrings.
ALSO = {
    "tensorflow_data_validation.utils.quantiles_util:_get_bin_weights": "ff414b2605f2c054",
    "tensorflow_data_validation.utils.quantiles_util:generate_equi_width_histogram": "79bbfb3ee17d8efe",
    "tensorflow_data_validation.statistics.stats_impl:extract_statistics_output": "4b00d0c7243622cc",
    "tensorflow_data_validation.statistics.stats_impl:_get_default_generators": "ae58fc85e76f0812",
    "tensorflow_data_validation.statistics.generators.basic_stats_generator:BasicStatsGenerator.__init__": "5303f4d0256cfffe",
    "tensorflow_data_validation.statistics.generators.top_k_uniques_stats_generator:_ComputeTopKUniquesStats": "f9da1aace06f8af1",
    "tensorflow_data_validation.utils.top_k_uniques_stats_util:make_feature_stats_proto_topk_uniques": "970dcc2e214890b0",
    "tfx_bsl.tfxio.tf_example_record:TFExampleRecord.BeamSource": "e6485adab957daad",
    "tfx_bsl.tfxio.tf_example_record:TFExampleRecord.__init__": "1f09483671911546",
    "tfx_bsl.tfxio.tf_example_record:_TFExampleRecordBase._GetSchemaForDecoding": "cebb2d2dc1bf870c",
}


# Here, not in a test: TFX sets environment variables when it is imported, and PyTorch comes first.
import_torch_first()
PRIVATE = {
    m.name: importlib.import_module(f"switchyard.components.compat.{m.name}").PRIVATE
    for m in pkgutil.iter_modules(compat.__path__)
    if m.name not in OTHERS
}


def digest(target):
    """Returns the digest of a target's source, of one without a source its type; of what is patched the library's own."""
    module, _, name = target.partition(":")
    found = importlib.import_module(module)
    for part in name.split("."):
        found = inspect.getattr_static(found, part)
    found = inspect.unwrap(found) if callable(found) else found
    try:
        return hashlib.sha256(inspect.getsource(found).encode()).hexdigest()[:16]
    except TypeError:
        return type(found).__name__


@pytest.mark.parametrize("name", PRIVATE)
def test_a_private_name_has_the_version_and_source_that_the_code_was_written_for(name):
    private = PRIVATE[name]
    assert private.fits()
    assert private.upstream.startswith("https://github.com/")
    assert {t: d for t in private.targets if (d := digest(t)) not in (KNOWN.get(t), ALSO.get(t))} == {}


def test_a_patch_is_skipped_for_another_version_and_logged(caplog):
    assert Private("apache-beam", ("1", "2"), ("x:y",), "").fits()
    assert not Private("apache-beam", ("2.7", "3"), ("x:y",), "").fits()
    assert "apache-beam" in caplog.text
    assert "x:y" in caplog.text
