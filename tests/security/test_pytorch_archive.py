"""A `.pt2` that was changed is refused before anything of it is unpickled, evaluated or pasted into source."""

import io
import json
import os
import warnings
import zipfile

import pytest
import torch
from torch import nn

from switchyard.components.errors import UserError
from switchyard.components.training.pytorch.archive import load_program, save_program

pytestmark = pytest.mark.core


class Model(nn.Module):
    """Weights, a buffer, a constant, a branch and sizes: what archives hold."""

    def __init__(self):
        super().__init__()
        self.layer, self.norm, self.table = nn.Linear(3, 1), nn.BatchNorm1d(3), nn.Embedding(5, 2)
        self.constant = torch.arange(3.0)

    def forward(self, features):
        x = torch.cat([features["f0"], self.table(features["f1"]).flatten(1)], dim=1) + self.constant
        x = x.reshape(x.shape[0] * 3 // 3, 3)
        x = torch.cond(x.sum() > 0, lambda v: v * 2, lambda v: v - 1, (x,))
        return self.layer(self.norm(x))


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "model.pt2"
    example = {"f0": torch.zeros(4, 1), "f1": torch.zeros(4, 1, dtype=torch.int64)}
    shapes = {k: {0: torch.export.Dim.DYNAMIC} for k in example}
    save_program(torch.export.export(Model().eval(), (example,), dynamic_shapes=(shapes,)), path, features=2)
    return path


class Evil:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.system, (f"touch {self.canary}",)


def pickled(canary):
    buffer = io.BytesIO()
    torch.save((Evil(canary),), buffer)
    return buffer.getvalue()


def rewrite(source, target, changes, compression=zipfile.ZIP_STORED, more=()):
    """Copies an archive; `changes` maps a record to a function of its content."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for name in old.namelist():
            content, inner = old.read(name), name.partition("/")[2]
            new.writestr(name, changes[inner](content) if inner in changes else content)
        for inner, content in more:
            new.writestr(f"{old.namelist()[0].partition('/')[0]}/{inner}", content)
    return target


MODEL, SAMPLES = "models/model.json", "data/sample_inputs/model.pt"
WEIGHTS, CONSTANTS = "data/weights/model_weights_config.json", "data/constants/model_constants_config.json"


def edited(edit):
    def change(content):
        document = json.loads(content)
        edit(document)
        return json.dumps(document).encode()

    return change


def first(config, **values):
    return edited(lambda d: next(iter(d["config"].values())).update(values))


def first_meta(**values):
    return edited(lambda d: next(iter(d["config"].values()))["tensor_meta"].update(values))


def measured(**values):
    """The first weight, of 1 x 3 float32, with other numbers in its description."""
    return {
        WEIGHTS: first_meta(
            **{k: [{"as_int": n} for n in v] if isinstance(v, list) else {"as_int": v} for k, v in values.items()}
        )
    }


def graph(edit):
    return {MODEL: edited(lambda d: edit(d["graph_module"]["graph"]))}


def renamed(text):
    """The name of a feature's placeholder, wherever it stands."""
    return {MODEL: lambda content: content.replace(b"features_f0", json.dumps(text)[1:-1].encode())}


def signed(**values):
    return {MODEL: edited(lambda d: d["graph_module"]["module_call_graph"][0]["signature"].update(values))}


def expression(text):
    def edit(document):
        sizes = [s for t in document["graph_module"]["graph"]["tensor_values"].values() for s in t["sizes"] if "as_expr" in s]
        for size in sizes:
            size["as_expr"]["expr_str"] = text

    return {MODEL: edited(edit)}


def attacks(canary):
    run = f'__import__("os").system("touch {canary}")'
    evil = pickled(canary)
    spec = '[1, {"type": "builtins.dict", "context": "[%s]", "children_spec": []}]'
    enum = '{\\"__enum__\\": true, \\"fqn\\": \\"antigravity:x\\", \\"name\\": \\"x\\"}'
    return {
        "sample inputs": ({SAMPLES: lambda _: evil}, "pickled sample inputs"),
        "pickled weights": ({WEIGHTS: first(WEIGHTS, use_pickle=True), "data/weights/weight_0": lambda _: evil}, "is a pickle"),
        "pickled constants": (
            {CONSTANTS: first(CONSTANTS, use_pickle=True), "data/constants/tensor_0": lambda _: evil},
            "is a pickle",
        ),
        "an object": ({CONSTANTS: first(CONSTANTS, path_name="custom_obj_0")}, "not one of its tensors"),
        "a climbing path": ({WEIGHTS: first(WEIGHTS, path_name="../../../etc/passwd")}, "not one of its tensors"),
        "a size out of nothing": ({"data/weights/weight_0": lambda _: b""}, "smaller than its declared size"),
        "a size beyond the bytes": (measured(sizes=[10**6, 3]), "smaller than its declared size"),
        "a size without end": (measured(sizes=[2**40, 2**40]), "smaller than its declared size"),
        "a place beyond the bytes": (measured(storage_offset=10**6), "smaller than its declared size"),
        "a byte or two beyond the bytes": (measured(sizes=[1, 4]), "out of bounds for storage"),
        "another type": ({WEIGHTS: first_meta(dtype=8)}, "must be a multiple of element size"),
        "values that are repeated": (measured(sizes=[10**9, 3], strides=[0, 1]), "repeat their values"),
        "a size that is none": (measured(sizes=[True, 3]), "no fixed size"),
        "guards": ({MODEL: edited(lambda d: d.update(guards_code=[run]))}, "guards"),
        "a name": (renamed(f"x: ({run}) = 1"), "is not an identifier"),
        "an expression": (expression(run), "is not allowed"),
        "an expression by attributes": (expression("Symbol('s17').__class__.__mro__"), "is not allowed"),
        "a symbol that is code": (expression(f"Symbol('{run}')"), "is not allowed"),
        "an endless power": (expression("Pow(Integer(9), Pow(Integer(9), Integer(9)))"), "is not allowed"),
        "Python's functions": (
            graph(lambda g: g["nodes"][0].update(target="_operator.methodcaller")),
            "'_operator.methodcaller'",
        ),
        "PyTorch's functions": (graph(lambda g: g["nodes"][0].update(target="torch.load")), "'torch.load'"),
        "compiled code of another file": (
            graph(lambda g: g["nodes"][0].update(target="torch.ops.higher_order.aoti_call_delegate")),
            "aoti_call_delegate",
        ),
        "a program of another runtime": (
            graph(lambda g: g["nodes"][0].update(target="torch.ops.higher_order.executorch_call_delegate")),
            "executorch_call_delegate",
        ),
        "numbers without end": (graph(lambda g: g["nodes"][0].update(target="math.factorial")), "'math.factorial'"),
        "files": (graph(lambda g: g["nodes"][0].update(target="torch.ops.aten.from_file.default")), "from_file"),
        "a kwarg of the call": (signed(in_spec=spec % '\\\\"x=1): pass\\\\"'), "features by position"),
        "a module of the call": (signed(in_spec=spec % enum.replace("\\", "\\\\")), "features by position"),
        "an argument of the call": (signed(forward_arg_names=[f"x={run}"]), "is not an identifier"),
        "a model that is no JSON": ({MODEL: lambda _: b"[" * 100_000}, "not JSON"),
        "a model that is another JSON": ({MODEL: lambda _: b"[]"}, "not a JSON object"),
    }


@pytest.mark.parametrize("case", attacks("canary"))
def test_a_changed_archive_is_refused_and_none_of_its_code_runs(case, archive, tmp_path):
    canary = tmp_path / "canary"
    changes, words = attacks(canary)[case]
    changed = rewrite(archive, tmp_path / "model.pt2", changes)
    assert changed.read_bytes() != archive.read_bytes()
    with pytest.raises(UserError, match=f"model.pt2 is refused: .*{words}"):
        load_program(changed, features=2).module(check_guards=False)
    assert not canary.exists()


def test_an_expanded_constant_is_stored_once_and_served(tmp_path):
    class Expanded(nn.Module):
        def __init__(self):
            super().__init__()
            self.constant = torch.ones(1).expand(1000, 1)

        def forward(self, features):
            return features["f0"] + self.constant.sum()

    example = {"f0": torch.zeros(4, 1)}
    shapes = {"f0": {0: torch.export.Dim.DYNAMIC}}
    save_program(torch.export.export(Expanded().eval(), (example,), dynamic_shapes=(shapes,)), tmp_path / "model.pt2", features=1)

    loaded = load_program(tmp_path / "model.pt2", features=1).module(check_guards=False)

    assert loaded(example).tolist() == [[1000.0]] * 4


def test_a_model_is_loaded_without_a_warning(archive):
    always = torch.is_warn_always_enabled()
    torch.set_warn_always(True)  # otherwise once per process
    try:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            load_program(archive, features=2)
    finally:
        torch.set_warn_always(always)
    assert [str(w.message) for w in found if issubclass(w.category, UserWarning)] == []


@pytest.mark.parametrize(
    "more",
    [
        ("data/weights/model.pt", b"x"),
        ("data/aotinductor/model/x.so", b"x"),
        ("extra/notes", b"x"),
        ("../../x", b"x"),
        ("models/b.json", b"{}"),
    ],
)
def test_an_unknown_record_is_refused(more, archive, tmp_path):
    with pytest.raises(UserError, match="which is not part of an export"):
        load_program(rewrite(archive, tmp_path / "model.pt2", {}, more=[more]), features=2)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_duplicate_record_is_refused(archive, tmp_path):
    with pytest.raises(UserError, match="not an archive of PyTorch's"):
        load_program(rewrite(archive, tmp_path / "model.pt2", {}, more=[(MODEL, b"{}")]), features=2)


def test_a_compressed_archive_is_refused(archive, tmp_path):
    changes = {"data/weights/weight_0": lambda _: bytes(50 << 20)}
    with pytest.raises(UserError, match="is compressed"):
        load_program(rewrite(archive, tmp_path / "model.pt2", changes, zipfile.ZIP_DEFLATED), features=2)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x02cos\nsystem\n(S'true'\ntR."])
def test_a_file_that_is_no_archive_is_refused(content, tmp_path):
    (tmp_path / "model.pt2").write_bytes(content)
    with pytest.raises(UserError, match="it is not an archive"):
        load_program(tmp_path / "model.pt2", features=2)


def test_a_saved_model_contains_no_pickle_and_no_path_of_this_machine(archive):
    with zipfile.ZipFile(archive) as found:
        contents = {n.partition("/")[2]: found.read(n) for n in found.namelist()}
    assert contents[SAMPLES] == b""
    assert not [n for n, c in contents.items() if c.startswith((b"PK\x03\x04", b"\x80\x02"))]
    assert os.path.dirname(__file__).encode() not in contents[MODEL]


def test_a_saved_model_is_loaded_and_accepts_any_number_of_rows(archive):
    serve = load_program(archive, features=2).module(check_guards=False)
    for rows in (2, 7):
        assert serve({"f0": torch.ones(rows, 1), "f1": torch.ones(rows, 1, dtype=torch.int64)}).shape == (rows, 1)
