"""Five hundred spoiled pipelines: each is a config or a user's error with one message, never another exception."""

import random
from pathlib import Path

import pytest

from switchyard.components.errors import UserError
from switchyard.pipelines.config.load import load_config

ROOT = Path(__file__).parents[2]
SEEDS = sorted(ROOT.glob("pipelines/examples/*/pipeline.yaml"))
LONG = """name: all
data: {path: [a.csv, "b/*.csv"], format: csv, exclude: [x], splits: {train: 0.7, eval: 0.2, test: 0.1}, split_key: k}
label: y
task: binary
preprocessing: features.py:preprocessing_fn
tokenizer: {code: words.py:build}
trainer: {framework: [tensorflow, pytorch], model: {tensorflow: m.py, pytorch: n.py:make}, accelerator: {kind: gpu, count: 2},
  hyperparameters: {epochs: 3, learning_rate: 0.01, batch_size: 64, class_weights: balanced}}
tune: {trials: 4, metric: auc, space: {learning_rate: {low: 0.0001, high: 0.1, log: true}, batch_size: {choices: [32, 64]}}}
validation: {schema: s.pbtxt, on_anomaly: {error: fail, warning: warn}}
evaluation: {slices: [[a], [a, b]], thresholds: {auc: {lower_bound: 0.6}}, improvement: {metric: auc, minimum: 0.01}}
serving: {model_name: m, infra_validation: {rows: 10}}
tracking: {uri: "http://h:5000", experiment: e}
beam: {runner: FlinkRunner, options: {parallelism: 2}}
"""
VALUES = [
    *("null", "true", "no", "-1", "0", "1e400", ".nan", "-.inf", "2024-01-01", "[]", "{}", "[[[]]]", "''", '"\\0"', "\U0001f600"),
    *(
        "&a [*a]",
        "!!python/object:os.system x",
        "!!binary x",
        "9" * 70,
        "x" * 5000,
        "{a: {a: {a: {a: 1}}}}",
        "? [x]\n: y",
        "|",
        ">-",
    ),
    *("~", "0x1F", "1_000", "12:30:45", "<<: *b", "@x", "`x`", "%TAG", "- -", "\t", "\ufeff", "\x85", "../../etc/passwd", "*"),
]


def spoiled(text, rng):
    lines = text.splitlines(keepends=True)
    for _ in range(rng.randint(1, 4)):
        i = rng.randrange(len(lines))
        line = lines[i]
        kind = rng.randrange(8)
        if kind == 0 and ":" in line:
            lines[i] = f"{line.partition(':')[0]}: {rng.choice(VALUES)}\n"
        elif kind == 1:
            lines.insert(i, line)
        elif kind == 2:
            at = rng.randrange(len(line))
            lines[i] = line[:at] + rng.choice(VALUES) + line[at:]
        elif kind == 3:
            at = rng.randrange(len(line))
            lines[i] = line[:at] + line[at + 1 :]
        elif kind == 4:
            lines[i] = " " * rng.randint(1, 5) + line
        elif kind == 5 and len(lines) > 1:
            del lines[i]
        elif kind == 6:
            at = rng.randrange(len(line))
            lines[i] = line[:at] + rng.choice(":,[]{}#&*!|>'\"%@`-?\0\x07é") + line[at + 1 :]
        else:
            words = line.split(" ")
            rng.shuffle(words)
            lines[i] = " ".join(words)
    return "".join(lines)


@pytest.mark.parametrize("batch", range(10))
def test_a_spoiled_yaml_is_a_config_or_one_clear_message(batch, tmp_path):
    rng = random.Random(batch)
    texts = [LONG, *(p.read_text() for p in SEEDS)]
    for number in range(50):
        text = spoiled(rng.choice(texts), rng)
        file = tmp_path / "pipeline.yaml"
        file.write_bytes(text.encode("utf-8", "surrogatepass"))
        overrides = [f"{rng.choice(['name', 'data.path', 'trainer', 'a.b', 'tune.space'])}={rng.choice(VALUES)}"] * (
            number % 3 == 0
        )
        said = "a config"
        try:
            load_config(file, overrides=overrides)
        except UserError as error:
            said = str(error).strip()
        except Exception as error:
            raise AssertionError(f"{type(error).__name__}: {error}\n{text}\n{overrides}") from error
        assert 0 < len(said) < 5000, f"{said}\n{text}"
