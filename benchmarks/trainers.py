"""Compares the trainers with hand-written loops, and their input with tensors that are already in memory.

python benchmarks/trainers.py [--rows 100000] [--epochs 4] [--repeats 3] [--json]
python benchmarks/trainers.py --batch 64 1024 8192 --features 20 100 --precision float32 bf16
python benchmarks/trainers.py --rows 400000 --device gpu --batch 4096 --features 100 --hidden 4096 --precision bf16

Both sides of a pair train the default model on the same rows with the same batch size, optimizer and metrics, validate after
each epoch, and must reach the same validation loss. Each side runs in a separate process; the sides alternate. Whole epochs are
measured, except the first one, in which frameworks compile; the median of the repeats is printed, with the smallest and largest,
and the ratio of processor seconds, which other programs on the machine change less. The trainers also
write a checkpoint after each epoch, the hand-written loops do not. On a GPU the sides of the frameworks that are
installed and see it run; the hand-written loop keeps all rows in the GPU's memory.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
LEARNING_RATE = 1e-3
PRECISIONS = ("float32", "bf16")
FRAMEWORKS = ("tensorflow", "pytorch")
# Side, side to compare with, measured quantity, target ratio.
PAIRS = (
    ("tensorflow", "keras_fit", "TensorFlow trainer, seconds an epoch, against Keras' fit", 1.05),
    ("pytorch", "pytorch_loop", "PyTorch trainer, seconds an epoch, against a loop by hand", 1.05),
    ("pytorch", "pytorch_memory", "PyTorch's input, rows a second, against tensors in memory", 0.8),
)
SIDES = tuple(dict.fromkeys(side for pair in PAIRS for side in pair[:2]))
_MOST_DIFFERENCE = 0.02


@dataclass(frozen=True)
class Setting:
    """Model and settings of both sides: `hidden` is the width of three layers; 0 selects the default model."""

    epochs: int
    batch: int
    features: int
    hidden: int
    device: str
    precision: str
    compiled: int


def main() -> None:
    """Runs all sides of all settings and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--batch", type=int, nargs="+", default=[64], help="examples a step (64); several: a table each")
    parser.add_argument("--features", type=int, nargs="+", default=[10], help="numbers a row (10)")
    parser.add_argument("--hidden", type=int, default=0, help="width of a model of three layers; default: the default model")
    parser.add_argument("--precision", choices=PRECISIONS, nargs="+", default=["float32"], help="of both sides (float32)")
    parser.add_argument("--compiled", type=int, choices=(0, 1), default=0, help="1: ours with accelerator.compile")
    parser.add_argument("--framework", choices=FRAMEWORKS, help="only this one")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    product = itertools.product(options.features, options.batch, options.precision)
    settings = [Setting(options.epochs, b, f, options.hidden, options.device, p, options.compiled) for f, b, p in product]
    if options.side:
        print(json.dumps(_side(options.side, options.folder, settings[0])))
        return
    only = options.framework
    if options.device == "gpu":
        seen = [f for f in FRAMEWORKS if f == (only or f) and _sees_gpu(f)]
        if not seen:
            sys.exit(
                f"--device gpu: {only or 'neither framework'} finds no GPU on this machine; omit --device to measure on CPUs"
            )
        only = seen[0] if len(seen) == 1 else None
    if not options.json:
        print(f"{options.rows:,} rows, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; seconds an epoch, by the clock")
    found = []
    for setting in settings:
        found.append(_measured(setting, options.rows, options.repeats, only))
        if not options.json:  # at once: the whole takes long, and may be cut off
            _print(setting, found[-1])
    if options.json:
        print(json.dumps({"rows": options.rows, "cores": os.cpu_count(), "load": os.getloadavg(), "settings": found}))


def _print(setting: Setting, measured: dict[str, Any]) -> None:
    model = f"three layers of {setting.hidden}" if setting.hidden else "the default model"
    model += ", compiled" * setting.compiled
    where = "on CPUs" if setting.device == "cpu" else "on a GPU"
    print(f"\n{setting.features} features, batches of {setting.batch}, {model}, {setting.precision}, {where}")
    print(f"{'':66}{'ours':>24}{'compared with':>24}{'ratio':>8}{'of processor seconds':>22}{'target':>8}")
    for row in measured["pairs"]:
        sides = "".join(f"{'{:.2f} ({:.2f} to {:.2f})'.format(*row[k]):>24}" for k in ("ours", "theirs"))
        print(f"{row['what']:66}{sides}{row['ratio']:8.2f}{row['processor_ratio']:22.2f}{row['target']:8.2f}", flush=True)


def _measured(setting: Setting, rows: int, repeats: int, only: str | None) -> dict[str, Any]:
    on_gpu = setting.device == "gpu"  # where rows in memory are the loop's
    pairs = [p for p in PAIRS if p[0] == (only or p[0]) and not (on_gpu and p[1] == "pytorch_memory")]
    sides = tuple(dict.fromkeys(side for pair in pairs for side in pair[:2]))
    measured: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder), rows, setting.features)
        for repeat in range(repeats):
            for side in sides:
                print(f"{repeat + 1} of {repeats}: {side}, {setting}", file=sys.stderr)
                measured[side].append(_run(side, Path(folder), setting))
    losses = {side: [m["val_loss"] for m in found] for side, found in measured.items()}
    for ours, theirs, *_ in pairs:  # frameworks start from other weights: few steps of large batches keep the difference
        both = losses[ours] + losses[theirs]
        if max(both) - min(both) > _MOST_DIFFERENCE:
            sys.exit(f"the sides do not reach the same validation loss: {losses}")
    return asdict(setting) | {"pairs": [_row(*pair, measured) for pair in pairs], "val_loss": losses}


def _sees_gpu(framework: str) -> bool:
    """Whether a framework is installed and sees a GPU; asked of a process of its own, as either takes memory of the GPU."""
    code = {
        "pytorch": "import torch; assert torch.cuda.is_available()",
        "tensorflow": "import tensorflow as tf; assert tf.config.list_physical_devices('GPU')",
    }
    return not subprocess.run([sys.executable, "-c", code[framework]], capture_output=True, check=False).returncode


def _row(ours: str, theirs: str, what: str, target: float, measured: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    def ratio(name: str) -> float:
        mine, other = (statistics.median(m[name] for m in measured[side]) for side in (ours, theirs))
        # Both sides read the same rows, so the rate is the inverse of the time.
        return mine / other if target > 1 else other / mine

    sides = {k: [m["epoch_seconds"] for m in measured[side]] for k, side in (("ours", ours), ("theirs", theirs))}
    ratios = {"ratio": ratio("epoch_seconds"), "processor_ratio": ratio("epoch_processor_seconds")}
    return {"what": what, "target": target, **ratios} | {k: (statistics.median(s), min(s), max(s)) for k, s in sides.items()}


def _run(side: str, folder: Path, setting: Setting) -> dict[str, float]:
    given = [f"--{k}={v}" for k, v in asdict(setting).items()]
    command = [sys.executable, __file__, *given, "--side", side, "--folder", str(folder)]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        sys.exit(f"{side} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _write(folder: Path, rows: int, features: int) -> None:
    """Writes transformed examples of both splits like the transform stage."""
    from switchyard.components.training.columns import FILE, SUFFIX, ColumnsWriter, features_json
    from switchyard.components.training.example_source import blocks

    random = np.random.default_rng(0)
    specs = _specs(features)
    (folder / FILE).write_text(features_json(specs))
    for split, n in (("train", rows), ("eval", rows // 4)):
        x = random.normal(size=(n, features)).astype(np.float32)
        y = (x @ np.linspace(-1, 1, features) + random.normal(size=n) > 0).astype(np.int64)
        (folder / f"Split-{split}").mkdir()
        with (folder / f"Split-{split}" / f"examples{SUFFIX}").open("wb") as file:
            writer = ColumnsWriter(file, blocks(specs), "int64")
            writer.write(((x,), y))
            writer.close()


def _specs(features: int) -> Any:
    from switchyard.components.data.feature_spec import FeatureSpec

    return tuple(FeatureSpec(f"x{i}", "float32", (1,)) for i in range(features))


def _side(side: str, folder: Path, setting: Setting) -> dict[str, float]:
    times: list[tuple[float, float]] = []
    losses: list[float] = []

    def epoch_ended(val_loss: float) -> None:
        times.append((time.monotonic(), time.process_time()))
        losses.append(val_loss)

    framework, _, how = side.partition("_")
    if how == "fit":
        _keras_fit(folder, setting, epoch_ended)
    elif how == "loop":
        _pytorch_loop(folder, setting, epoch_ended)
    else:
        _trainer(framework, folder, setting, epoch_ended, in_memory=how == "memory")
    # The first epoch compiles and opens the files.
    clock, processor = ((last - first) / (setting.epochs - 1) for first, last in zip(times[0], times[-1], strict=True))
    return {"epoch_seconds": clock, "epoch_processor_seconds": processor, "val_loss": losses[-1]}


def _request(folder: Path, setting: Setting, build_model: Callable[[Any, int], Any] | None = None) -> Any:
    from switchyard.components.training.accelerator import AcceleratorProfile
    from switchyard.components.training.contract import TrainRequest
    from switchyard.components.training.examples import transformed_examples
    from switchyard.components.training.hyperparameters import Hyperparameters
    from switchyard.components.training.losses import named_loss
    from switchyard.components.training.model_spec import ModelSpec

    train, held_out = (transformed_examples(folder, split) for split in ("train", "eval"))
    work = Path(tempfile.mkdtemp(dir=folder))
    return TrainRequest(
        spec=ModelSpec(_specs(setting.features), "binary", 1),
        train=train,
        eval=held_out,
        hyperparameters=Hyperparameters(setting.epochs, None, setting.batch, LEARNING_RATE, "adam", 1, None, 0.0, None),
        loss=named_loss("binary"),
        accelerator=AcceleratorProfile(setting.device, precision=setting.precision, compile=bool(setting.compiled)),
        build_model=(lambda spec: build_model(spec, setting.hidden)) if build_model and setting.hidden else None,
        checkpoint_dir=work / "checkpoints",
        export_dir=work / "export",
    )


def _wide_keras(spec: Any, hidden: int) -> Any:
    import keras

    inputs = {f.name: keras.Input(f.shape, dtype=f.dtype, name=f.name) for f in spec.features}
    x = keras.layers.Concatenate()([inputs[f.name] for f in spec.features])
    for _ in range(3):
        x = keras.layers.Dense(hidden, activation="relu")(x)
    return keras.Model(inputs, keras.layers.Dense(spec.outputs)(x))


def _wide(spec: Any, hidden: int) -> Any:
    import torch
    from torch import nn

    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            widths = [len(spec.features), hidden, hidden, hidden]
            layers = [nn.Sequential(nn.Linear(a, b), nn.ReLU()) for a, b in itertools.pairwise(widths)]
            self.layers = nn.Sequential(*layers, nn.Linear(hidden, spec.outputs))

        def forward(self, features: dict[str, torch.Tensor]) -> Any:
            return self.layers(torch.cat([features[f.name] for f in spec.features], dim=1))

    return Wide()


def _trainer(framework: str, folder: Path, setting: Setting, epoch_ended: Callable[[float], None], *, in_memory: bool) -> None:
    if framework == "pytorch":
        from switchyard.components.import_order import import_torch_first

        import_torch_first()
    from switchyard.components.training.trainers import trainer_class

    trainer = trainer_class(framework)()
    request = _request(folder, setting, _wide if framework == "pytorch" else _wide_keras)
    trainer.prepare(request.accelerator)
    if in_memory:
        _make_batches_first(request, setting.epochs)
    trainer.train(request, lambda step, metrics: epoch_ended(metrics["val_loss"]))


def _make_batches_first(request: Any, epochs: int) -> None:
    """Makes the PyTorch trainer read each epoch's batches from a list."""
    from switchyard.components.training.ledger import TrainingLedger
    from switchyard.components.training.pytorch import trainer as pytorch_trainer

    ledger = TrainingLedger.open(request.checkpoint_dir, request.hyperparameters)
    batches = pytorch_trainer.TrainBatches(request, ledger)
    remaining = iter([list(batches) for _ in range(epochs)])

    class Ready:
        def __init__(self, *_: Any) -> None: ...

        def __iter__(self) -> Iterator[Any]:
            # A generator: Lightning calls iter() once to see whether it can.
            yield from next(remaining)

    # This process measures one side and ends: the trainer's own batches are not given back.
    mock.patch.object(pytorch_trainer, "TrainBatches", Ready).start()


def _arrays(folder: Path, setting: Setting) -> tuple[Any, Any, Any]:
    request = _request(folder, setting)
    found = (next(s.batches(s.rows)) for s in (request.train, request.eval))
    train, held_out = (({k: np.ascontiguousarray(v) for k, v in x.items()}, y) for x, y in found)
    return request.spec, train, held_out


def _keras_fit(folder: Path, setting: Setting, epoch_ended: Callable[[float], None]) -> None:
    import keras
    import tensorflow as tf

    from switchyard.components.training.tensorflow.trainer import default_model

    tf.config.experimental.enable_tensor_float_32_execution(False)  # as the trainer's float32
    spec, (x, y), (x_eval, y_eval) = _arrays(folder, setting)
    keras.utils.set_random_seed(1)
    keras.mixed_precision.set_global_policy("mixed_bfloat16" if setting.precision == "bf16" else "float32")
    model = _wide_keras(spec, setting.hidden) if setting.hidden else default_model(spec)
    model.compile(
        optimizer=keras.optimizers.Adam(LEARNING_RATE, epsilon=1e-7),
        loss=keras.losses.BinaryCrossentropy(from_logits=True),
        metrics=[keras.metrics.BinaryAccuracy(threshold=0.0), keras.metrics.AUC(from_logits=True)],
        jit_compile=False,
    )
    at_end = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: epoch_ended(float(logs["val_loss"])))
    held_out = (x_eval, y_eval[:, None])
    model.fit(
        x,
        y[:, None],
        batch_size=setting.batch,
        epochs=setting.epochs,
        verbose=0,
        callbacks=[at_end],
        validation_data=held_out,
        validation_batch_size=1024,
    )


def _pytorch_loop(folder: Path, setting: Setting, epoch_ended: Callable[[float], None]) -> None:
    from switchyard.components.import_order import import_torch_first

    import_torch_first()
    import torch
    import torchmetrics
    from torch.nn import functional

    from switchyard.components.training.pytorch.trainer import default_model

    spec, (x, y), (x_eval, y_eval) = _arrays(folder, setting)
    torch.set_num_threads(1)  # as the trainer: faster on so small a model
    torch.manual_seed(1)
    device = torch.device("cuda" if setting.device == "gpu" else "cpu")
    model = (_wide(spec, setting.hidden) if setting.hidden else default_model(spec)).to(device)
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE, eps=1e-7, fused=True)
    cast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=setting.precision == "bf16")
    x, x_eval = ({k: torch.from_numpy(v).to(device) for k, v in features.items()} for features in (x, x_eval))
    y, y_eval = torch.from_numpy(y).to(device), torch.from_numpy(y_eval).to(device)
    accuracy = torchmetrics.classification.BinaryAccuracy().to(device)
    auc = torchmetrics.classification.BinaryAUROC(thresholds=200).to(device)
    for _ in range(setting.epochs):
        model.train()
        for index in torch.randperm(len(y), device=device).split(setting.batch):
            optimizer.zero_grad()
            with cast:
                logits = model({k: v[index] for k, v in x.items()}).float()[:, 0]
            loss = functional.binary_cross_entropy_with_logits(logits, y[index].float())
            loss.backward()
            optimizer.step()
            accuracy.update(logits.detach().sigmoid(), y[index])
            auc.update(logits.detach().sigmoid(), y[index])
        model.eval()
        with torch.inference_mode(), cast:
            logits = model(x_eval).float()[:, 0]
            val_loss = float(functional.binary_cross_entropy_with_logits(logits, y_eval.float()))
            accuracy.update(logits.sigmoid(), y_eval)
            auc.update(logits.sigmoid(), y_eval)
        accuracy.compute(), auc.compute(), accuracy.reset(), auc.reset()
        epoch_ended(val_loss)


if __name__ == "__main__":
    main()
