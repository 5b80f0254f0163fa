"""A SavedModel is loaded only when all of its graph computes: whatever reaches files, processes or the network is refused."""

import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from switchyard.components.bundle.saved_model_check import check_saved_model
from switchyard.components.errors import UserError

pytestmark = pytest.mark.core
NUMBERS = {"f0": tf.TensorSpec([None, 1], tf.float32)}
TEXTS = {"f0": tf.TensorSpec([None, 1], tf.string)}


def saved(folder, serve, signature=NUMBERS, **attributes):
    class Module(tf.Module):
        @tf.function(input_signature=[signature])
        def serve(self, features):
            return serve(self, features["f0"])

    module = Module()
    for name, value in attributes.items():
        setattr(module, name, value)
    tf.saved_model.save(module, str(folder))
    return folder


def after(operation):
    def serve(self, x):
        with tf.control_dependencies([operation(x)]):
            return tf.identity(x)

    return serve


def number_in(text):
    return tf.strings.to_number(tf.strings.join(["0", tf.strings.substr(text, 0, 0)]))


RAW = tf.raw_ops
REACHES_OUT = {
    "ReadFile": lambda self, x: x + number_in(tf.io.read_file("/etc/hostname")),
    "WriteFile": after(lambda x: tf.io.write_file("/tmp/written", "x")),
    "MatchingFiles": lambda self, x: x + tf.cast(tf.size(tf.io.matching_files("/etc/*")), tf.float32),
    "PyFunc": lambda self, x: tf.numpy_function(lambda y: y, [x], tf.float32),
    "EagerPyFunc": lambda self, x: tf.py_function(lambda y: y, [x], tf.float32),
    "PrintV2": after(lambda x: tf.print("x", output_stream="file:///tmp/written")),
    "WholeFileReaderV2": after(lambda x: RAW.WholeFileReaderV2()),
    "SummaryWriter": after(
        lambda x: RAW.CreateSummaryFileWriter(
            writer=RAW.SummaryWriter(), logdir="/tmp/x", max_queue=1, flush_millis=1, filename_suffix="x"
        )
    ),
    "DebugIdentityV2": lambda self, x: RAW.DebugIdentityV2(input=x, debug_urls=["file:///tmp/x"]),
    "ImmutableConst": lambda self, x: x + RAW.ImmutableConst(dtype=tf.float32, shape=[1], memory_region_name="/etc/hostname"),
    "in a branch": lambda self, x: tf.cond(tf.size(x) > 3, lambda: number_in(tf.io.read_file("/etc/hostname")), lambda: 0.0),
    "in a loop": lambda self, x: tf.map_fn(lambda y: y + number_in(tf.io.read_file("/etc/hostname")), x),
    "TextLineDataset": lambda self, x: x + tf.data.TextLineDataset("/etc/hostname").reduce(0.0, lambda a, _: a),
}


@pytest.mark.parametrize("case", REACHES_OUT)
def test_an_operation_on_files_or_processes_is_refused_by_name(case, tmp_path):
    folder = saved(tmp_path / "m", REACHES_OUT[case])
    name = "ReadFile" if case.startswith("in a") else ".*Dataset" if case.endswith("Dataset") else case
    with pytest.raises(UserError, match=f"it has the operation '{name}', which may reach files"):
        check_saved_model(folder)


CHECKPOINTS = {
    "writes": after(lambda x: RAW.SaveV2(prefix="/tmp/x", tensor_names=["a"], shape_and_slices=[""], tensors=[x])),
    "reads": lambda self, x: (
        x + RAW.RestoreV2(prefix="/tmp/x", tensor_names=["a"], shape_and_slices=[""], dtypes=[tf.float32])[0]
    ),
}


@pytest.mark.parametrize("case", CHECKPOINTS)
def test_no_request_makes_a_model_read_or_write_checkpoints(case, tmp_path):
    with pytest.raises(UserError, match="reads or writes checkpoints"):
        check_saved_model(saved(tmp_path / "m", CHECKPOINTS[case]))


def table(folder):
    (folder / "words").write_text("a\nb\n")
    kind = tf.lookup.TextFileIndex
    words = tf.lookup.TextFileInitializer(str(folder / "words"), tf.string, kind.WHOLE_LINE, tf.int64, kind.LINE_NUMBER)
    return tf.lookup.StaticHashTable(words, -1)


def look_up(self, x):
    return self.table.lookup(x)


def test_a_models_own_vocabulary_is_read(tmp_path):
    folder = saved(tmp_path / "m", look_up, TEXTS, table=table(tmp_path))
    check_saved_model(folder)
    assert tf.saved_model.load(str(folder)).serve({"f0": tf.constant([["b"]])}).numpy() == [[1]]


def test_a_vocabulary_that_a_request_names_is_refused(tmp_path):
    def serve(self, x):
        RAW.InitializeTableFromTextFileV2(table_handle=self.table.resource_handle, filename=x[0, 0], key_index=-2, value_index=-1)
        return self.table.lookup(x)

    with pytest.raises(UserError, match="reads a file other than its vocabularies"):
        check_saved_model(saved(tmp_path / "m", serve, TEXTS, table=table(tmp_path)))


def edit(folder, change):
    file = folder / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    change(model.meta_graphs[0])
    file.write_bytes(model.SerializeToString())


def rename_asset(graph):
    graph.asset_file_def[0].filename = "../../../etc/hostname"


def rebind(graph):
    objects = graph.object_graph_def
    asset = next(i for i, n in enumerate(objects.nodes) if n.WhichOneof("kind") == "asset")
    objects.nodes[asset].constant.operation = "Const"


def hide(graph):
    graph.graph_def.node.add(name="x", op="LikelyUnknown")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (rename_asset, "reads the file '../../../etc/hostname'"),
        (rebind, "reads a file other than its vocabularies"),
        (hide, "'LikelyUnknown', which is unknown to TensorFlow"),
        (lambda g: g.ClearField("object_graph_def"), "exactly one TensorFlow 2 graph"),
    ],
)
def test_a_graph_that_was_changed_is_refused(change, words, tmp_path):
    folder = saved(tmp_path / "m", look_up, TEXTS, table=table(tmp_path))
    edit(folder, change)
    with pytest.raises(UserError, match=words):
        check_saved_model(folder)


def test_files_other_than_saved_model_pb_are_not_loaded(tmp_path):
    folder = saved(tmp_path / "m", look_up, TEXTS, table=table(tmp_path))
    (folder / "saved_model.pb").rename(folder / "saved_model.pbtxt")
    with pytest.raises(UserError, match=r"saved_model\.pb is missing"):
        check_saved_model(folder)


def test_operations_that_compute_are_accepted(tmp_path):
    def serve(self, x):
        y = tf.map_fn(lambda v: v * 2, x) + tf.random.normal([1]) + self.weight
        y = tf.cond(tf.size(y) > 3, lambda: tf.nn.relu(y), lambda: tf.sigmoid(y))
        return tf.while_loop(lambda v: tf.reduce_sum(v) < 10, lambda v: [v + 1.0], [y])[0]

    check_saved_model(saved(tmp_path / "m", serve, weight=tf.Variable([1.0])))
