"""Config section `trainer`: framework, model, hyperparameters and devices."""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, model_validator

from switchyard.components.config import Names, Number, Positive, Section
from switchyard.components.errors import did_you_mean
from switchyard.components.tracking.model_registry import CHAMPION
from switchyard.components.tracking.references import name_and_selector
from switchyard.components.training.accelerator import GPU_ONLY, AcceleratorProfile
from switchyard.components.training.huggingface import HuggingFaceModel, ModelForms, check_huggingface, forms
from switchyard.components.training.hyperparameters_config import HyperparametersConfig, TreesConfig
from switchyard.components.training.losses import PARAMETERS, check_parameters
from switchyard.components.training.names import (
    COMMON_TO_TREES,
    ENSEMBLE,
    FRAMEWORKS,
    LOSSES,
    NETWORKS,
    TREES,
)

# Numbers of a row's output: a mask of 1,024 x 1,024 pixels.
MOST_OUTPUTS = 1 << 20

_Given = TypeVar("_Given", bound=str | tuple[str, ...] | HuggingFaceModel)


class Accelerator(Section):
    """The devices and the precision of training. Short form in YAML: `gpu` or `gpu:2`.

    A device that is missing is an error; only `auto` falls back to the CPU.

    Attributes:
        kind: type of device.
        count: devices per node that share the training; on CPUs, workers that share the cores.
        nodes: machines. A local run simulates them by processes; on a cluster they form a TrainJob.
        precision: the same in every framework. `float32` is IEEE float32 in matrix products and convolutions, on GPUs too; `tf32`
            computes both on an NVIDIA GPU's tensor cores with 10 bits of mantissa; `bf16` and `fp16` are mixed precision. `tf32`
            and `fp16` require a GPU.
        shard_model: PyTorch only: shard weights, gradients and optimizer state over the workers (FSDP), for models that do not
            fit on one device.
        compile: compile the training step with `torch.compile` or XLA; falls back to eager mode with a warning.
    """

    kind: Literal["auto", "cpu", "gpu", "tpu"] = "auto"
    count: Positive = 1
    nodes: Positive = 1
    precision: Literal["float32", "tf32", "bf16", "fp16"] = "float32"
    shard_model: bool = False
    compile: bool = False

    @model_validator(mode="after")
    def _check(self) -> Accelerator:
        if self.precision in GPU_ONLY and self.kind in ("cpu", "tpu"):
            raise ValueError(f"precision {self.precision} needs a GPU, kind is {self.kind!r}; use float32 or bf16")
        return self

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        if isinstance(value, str):
            kind, _, count = value.partition(":")
            return (
                {"kind": kind, "count": int(count) if re.fullmatch(r"[0-9]{1,9}", count) else count} if count else {"kind": kind}
            )
        return value


Quantile = Annotated[Number, Field(gt=0, lt=1)]


class TrainerConfig(Section):
    """The trainer and its model.

    Attributes:
        framework: `tensorflow`, `pytorch`, `lightgbm`, or `module:Class` of your own `Trainer` (installed or beside the YAML); or
            a list of these, trained side by side and compared: the best that passes is blessed. `ensemble` in a list of two
            others or more adds the weighted mean of their predictions, with the weights of the smallest loss on the eval split.
        model: `file.py` with `build_model(spec)`, or `file.py:function`, or one of these per framework (your own trainer by its
            class or as written in `framework`); of `pytorch` also a model folder, `{huggingface: FOLDER}`. Default: embeddings
            and two dense layers.
        model_parameters: arbitrary values passed to `build_model` as `spec.parameters`.
        loss: `cross_entropy`, `focal` or `hinge` (binary, multiclass, multilabel), `mse`, `mae`, `huber`, `poisson` or `quantile`
            (regression, multioutput), `pinball` (quantile), `listwise` or `pairwise` (ranking), or `losses.py:my_loss`, a
            function of labels and outputs that returns the loss of each row; or one of these per framework. Default:
            `cross_entropy`, `mse`, `pinball`, `listwise`.
        callbacks: `callbacks.py` with `build_callbacks(spec)`, which returns a list of Keras or Lightning callbacks, or
            `callbacks.py:function`, or one of these per framework; in place of `build_callbacks` in the model file.
        loss_parameters: `gamma` of `focal` (2), `delta` of `huber` (1), `quantile` of `quantile` (0.5); a function of your own
            receives them by name.
        quantiles: quantiles of the label that a model of `task: quantile` outputs, between 0 and 1, ascending. Default: 0.1, 0.5,
            0.9.
        start_from: registered version whose weights the training starts from, by the same framework: `champion` (of this
            pipeline; fresh while there is none), `NAME@ALIAS` or `models:/NAME/VERSION`; or one of these per framework, whose
            others start fresh. Weights are matched by name and shape, the rows of embeddings by word.
        initialize: names of weights, as patterns such as `head.*`, that start as initialized in spite of `start_from`; or a list
            per framework.
        freeze: names of weights, as patterns such as `encoder.*` (PyTorch) or `encoder/*` (Keras), that are not trained; or a
            list per framework.
        output_shape: shape of a row's output in a `custom` task, such as [8], or [28, 28] of a mask; [1] is a number.
        sample_weight: column with the weight of each row, a number of 0 or more that is no feature: a row of weight 2 counts as
            two rows of weight 1, in training and in evaluation. Only the weights' ratios matter. With `class_weights` a row's
            weight in training is the product. Not of a ranking, which has queries.
        hyperparameters: hyperparameters of training.
        trees: hyperparameters of boosted trees.
        accelerator: devices and precision.
        deterministic: bitwise reproducible on the same devices and versions, in every framework; an operation without a
            deterministic implementation is an error.
    """

    framework: str | tuple[str, ...] = "tensorflow"
    model: ModelForms | None = None
    model_parameters: dict[str, Any] = Field(default_factory=dict)
    loss: str | dict[str, str] | None = None
    loss_parameters: dict[str, Any] = Field(default_factory=dict)
    callbacks: str | dict[str, str] | None = None
    quantiles: tuple[Quantile, ...] | None = None
    start_from: str | dict[str, str] | None = None
    initialize: Names | dict[str, Names] = ()
    freeze: Names | dict[str, Names] = ()
    output_shape: Annotated[tuple[Positive, ...], Field(min_length=1)] | None = None
    sample_weight: str | None = None
    hyperparameters: HyperparametersConfig = HyperparametersConfig()
    trees: TreesConfig = TreesConfig()
    accelerator: Accelerator = Accelerator()
    deterministic: bool = False

    def profile(self) -> AcceleratorProfile:
        """Returns devices, precision and determinism as the plain data that trainers accept."""
        return AcceleratorProfile(**self.accelerator.model_dump(), deterministic=self.deterministic)

    def unused(self, boosting: Collection[str]) -> str:
        """Returns which given hyperparameters no configured framework reads, and what to use instead; empty if there are none.

        Args:
            boosting: those of `frameworks` that boost trees.
        """
        given = self.hyperparameters.model_fields_set - set(COMMON_TO_TREES)
        if given and set(self.frameworks) <= set(boosting):
            return f"trainer.hyperparameters: {', '.join(sorted(given))}: not of boosted trees, whose keys are trainer.trees"
        if "trees" in self.model_fields_set and not boosting:
            return f"trainer.trees: only boosted trees ({', '.join(TREES)}) read it, and trainer.framework names none"
        return ""

    @property
    def frameworks(self) -> tuple[str, ...]:
        """The configured frameworks to train, one or more."""
        return tuple(framework for framework in self.listed if framework != ENSEMBLE)

    @property
    def listed(self) -> tuple[str, ...]:
        """The value of `framework` as a tuple, an ensemble included."""
        return (self.framework,) if isinstance(self.framework, str) else self.framework

    @property
    def ensemble(self) -> bool:
        """Whether an ensemble of the trained models is a candidate."""
        return ENSEMBLE in self.listed

    @property
    def candidates(self) -> tuple[str, ...]:
        """The short names of all candidates, see `trainer_name`."""
        return tuple(map(trainer_name, (*self.frameworks, *([ENSEMBLE] if self.ensemble else []))))

    def model_for(self, framework: str) -> str | HuggingFaceModel | None:
        """Returns the model configured for a framework, a file or a model folder, or None."""
        return _for_framework(self.model, framework)

    def model_file_for(self, framework: str) -> str | None:
        """Returns the model file configured for a framework, or None."""
        model = self.model_for(framework)
        return model if isinstance(model, str) else None

    @property
    def huggingface(self) -> HuggingFaceModel | None:
        """The configured Hugging Face model, also if another framework is trained."""
        return next((m for m in forms(self.model) if isinstance(m, HuggingFaceModel)), None)

    def loss_for(self, framework: str) -> str | None:
        """Returns the loss configured for a framework, a name or a reference to a function, or None."""
        return _for_framework(self.loss, framework)

    def callbacks_for(self, framework: str) -> str | None:
        """Returns the callbacks' file configured for a framework, or None."""
        return _for_framework(self.callbacks, framework)

    def start_for(self, framework: str) -> str | None:
        """Returns the version configured for a framework to start from, or None."""
        return _for_framework(self.start_from, framework)

    def initialize_for(self, framework: str) -> tuple[str, ...]:
        """Returns the patterns of weights of a framework that start as initialized."""
        return _for_framework(self.initialize, framework) or ()

    def freeze_for(self, framework: str) -> tuple[str, ...]:
        """Returns the patterns of weights of a framework that are not trained."""
        return _for_framework(self.freeze, framework) or ()

    @model_validator(mode="after")
    def _check(self) -> TrainerConfig:
        own = r"([A-Za-z_][\w.]*|.*\.py):[A-Za-z_]\w*"
        self._check_listed()
        for framework in self.frameworks:
            if framework not in FRAMEWORKS and not re.fullmatch(own, framework):
                raise ValueError(
                    f"framework: {framework!r} is not a trainer; allowed: {', '.join(FRAMEWORKS)}, or "
                    f"'package.module:Class'.{did_you_mean(framework, (*FRAMEWORKS, ENSEMBLE))}"
                )
            if framework in TREES and self.model_for(framework):
                raise ValueError(f"model: {framework!r} takes no model file, its trees are described by trees; remove the entry")
            if isinstance(self.model, dict) and framework in NETWORKS and not self.model_for(framework):
                raise ValueError(
                    f"model: has no entry for the framework {framework!r}, received {sorted(self.model)}; "
                    "add one, or remove model for the default model"
                )
        of_frameworks = {n: getattr(self, n) for n in ("model", "loss", "callbacks", "start_from", "initialize", "freeze")}
        for name, given in of_frameworks.items():
            for key in given if isinstance(given, dict) else ():
                known = tuple(dict.fromkeys((*FRAMEWORKS, *map(trainer_name, self.frameworks))))
                if trainer_name(key) not in known and not re.fullmatch(own, key):
                    raise ValueError(
                        f"{name}: {key!r} is not a framework; allowed: {', '.join(known)}.{did_you_mean(key, known)}"
                    )
        self._check_files()
        check_huggingface(self.model, self.frameworks, self.model_parameters)
        self._check_loss()
        self._check_start()
        if self.quantiles is not None and (not self.quantiles or list(self.quantiles) != sorted(set(self.quantiles))):
            raise ValueError(f"quantiles: must be ascending and at least one, received {list(self.quantiles)}")
        if self.output_shape and math.prod(self.output_shape) > MOST_OUTPUTS:
            raise ValueError(
                f"output_shape: {list(self.output_shape)} has more than {MOST_OUTPUTS:,} numbers; give a smaller one"
            )
        workers, batch = self.profile().workers, self.hyperparameters.batch_size
        if batch % workers:
            raise ValueError(
                f"hyperparameters.batch_size: {batch} rows cannot be divided equally among {workers} workers "
                f"(accelerator: count times nodes); try {-(-batch // workers) * workers}"
            )
        return self

    def _check_listed(self) -> None:
        if not self.listed:
            raise ValueError(f"framework: the list is empty; allowed: {', '.join(FRAMEWORKS)}, or 'package.module:Class'")
        short = [trainer_name(f) for f in self.listed]
        if len(set(short)) != len(short):
            raise ValueError(f"framework: lists a trainer twice, received {', '.join(short)}; name each once")
        if self.ensemble and len(self.frameworks) < 2:
            raise ValueError(
                f"framework: an ensemble is made of two trained models or more, received {', '.join(self.listed)}; add them, as "
                f"[tensorflow, pytorch, {ENSEMBLE}]"
            )

    def _check_files(self) -> None:
        for name, one in {"model": self.model, "callbacks": self.callbacks}.items():
            if isinstance(one, str | HuggingFaceModel) and len(self.frameworks) > 1:
                raise ValueError(
                    f"{name}: several frameworks need one file each, received {getattr(one, 'huggingface', one)!r}; "
                    f"write {{{', '.join(f'{f}: FILE' for f in self.frameworks)}}}"
                )
        for framework in self.frameworks:
            if (file := self.callbacks_for(framework)) and not is_code(file):
                raise ValueError(f"callbacks: {file!r} is not a Python file; use a file such as callbacks.py")

    def _check_start(self) -> None:
        for name in ("start_from", "initialize", "freeze"):
            given = getattr(self, name)
            if given and not isinstance(given, dict) and len(self.frameworks) > 1:
                raise ValueError(
                    f"{name}: several frameworks need one each, received {given!r}; write {{{self.frameworks[0]}: ...}}, "
                    "without those that need none"
                )
            for framework in self.frameworks:
                if framework in TREES and _for_framework(given, framework):
                    raise ValueError(f"{name}: {framework} has no weights to start from or to freeze; remove it")
        for framework in self.frameworks:
            start = self.start_for(framework)
            if self.initialize_for(framework) and not start:
                raise ValueError("initialize: without start_from all weights start as initialized; remove it, or set start_from")
            model = self.model_for(framework)
            if start and isinstance(model, HuggingFaceModel) and model.lora:
                raise ValueError(
                    "start_from: LoRA trains matrices that a registered version does not hold, as they are merged into its "
                    "weights; remove start_from, or model.lora"
                )
            if start and start != CHAMPION and not name_and_selector(start):
                raise ValueError(
                    f"start_from: {start!r} is no registered version; allowed: champion, NAME@ALIAS, NAME@VERSION, "
                    "models:/NAME/VERSION"
                )

    def _check_loss(self) -> None:
        if isinstance(self.loss, str) and is_code(self.loss) and len(self.frameworks) > 1:
            raise ValueError(
                f"loss: several frameworks need a function each, received {self.loss!r}; "
                f"write {{{', '.join(f'{f}: FILE' for f in self.frameworks)}}}"
            )
        losses = [loss for f in self.frameworks if (loss := self.loss_for(f))]
        for loss in losses:
            if not is_code(loss) and any(loss in names for names in LOSSES.values()):  # others are refused with the task's
                check_parameters(loss, self.loss_parameters)
        if self.loss_parameters and not losses:
            named = ", ".join(PARAMETERS)
            raise ValueError(
                f"loss_parameters: the loss has no parameters; set trainer.loss to one that has ({named}) or to your own function"
            )


def is_code(reference: str) -> bool:
    """Returns whether a config's value is `file.py` or `file.py:function`."""
    return reference.endswith(".py") or reference.rpartition(":")[0].endswith(".py")


def _for_framework(given: _Given | dict[str, _Given] | None, framework: str) -> _Given | None:
    if not isinstance(given, dict):
        return given
    return next((value for key, value in given.items() if trainer_name(key) == trainer_name(framework)), None)


def trainer_name(framework: str) -> str:
    """Returns the name used in stage names: the framework, or the class name in lower case."""
    return framework.rpartition(":")[2].lower()
