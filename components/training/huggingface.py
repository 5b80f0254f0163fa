"""Config of a Hugging Face model: the second form of `trainer.model`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from switchyard.components.config import Names, Number, Positive, Section
from switchyard.components.training.names import HUGGINGFACE, TREES


class LoraConfig(Section):
    """LoRA: the model's weights stay as they are, small matrices beside some of its layers and the head are trained.

    They are merged into the weights before the export, so that the served model is as fast as without.

    Attributes:
        rank: rank of the matrices.
        alpha: their outputs are multiplied by `alpha / rank`. Default: twice the rank.
        dropout: share of the matrices' inputs that is dropped in training.
        modules: names of the layers, or the ends of their names. Default: PEFT's choice for the type of model, such as the
            queries and values of BERT; a type that it does not know needs them.
    """

    rank: Positive = 8
    alpha: Annotated[Number, Field(gt=0)] | None = None
    dropout: Annotated[Number, Field(ge=0, lt=1)] = 0.0
    modules: Names = ()


class HuggingFaceModel(Section):
    """A model folder of Hugging Face's, fine-tuned by the PyTorch trainer; the folder's tokenizer reads the texts.

    Nothing is downloaded, and no code of the folder's is run. Needs the extra `huggingface`.

    Attributes:
        huggingface: folder on this machine that `save_pretrained` wrote: `config.json`, `model.safetensors` (or several with
            their index) and `tokenizer.json`. A folder with pickled weights, code, or no tokenizer is refused.
        task: the model's head: a score per class, label or quantity of the pipeline's `task`. A head of another size in the
            folder is replaced by an untrained one.
        lora: train a LoRA adapter; `null` trains all weights.
    """

    huggingface: Annotated[str, Field(min_length=1)]
    task: Literal["text-classification"] = "text-classification"
    lora: LoraConfig | None = None

    def settings(self) -> dict[str, Any]:
        """Returns what `build_model` must know beside the folder's files."""
        lora = self.lora and {**self.lora.model_dump(mode="json"), "alpha": self.lora.alpha or 2.0 * self.lora.rank}
        return {"lora": lora}


# Contains `build_model`; never imported by the processes that read configs.
CODE = Path(__file__).parent / "pytorch" / "huggingface_model.py"
# Names of a union's forms in pydantic's errors.
FORMS = (_FILE, MODEL, FRAMEWORKS) = ("<file>", "<huggingface>", "<frameworks>")


def _form(value: Any) -> str | None:
    if isinstance(value, HuggingFaceModel) or (isinstance(value, dict) and "huggingface" in value):
        return MODEL
    return FRAMEWORKS if isinstance(value, dict) else _FILE if isinstance(value, str) else None


def _told_apart(expected: str) -> Discriminator:
    return Discriminator(_form, custom_error_type="model_form", custom_error_message=f"must be {expected}")


_One = Annotated[
    Annotated[str, Tag(_FILE)] | Annotated[HuggingFaceModel, Tag(MODEL)], _told_apart("FILE.py or {huggingface: FOLDER}")
]
ModelForms = Annotated[
    Annotated[str, Tag(_FILE)] | Annotated[HuggingFaceModel, Tag(MODEL)] | Annotated[dict[str, _One], Tag(FRAMEWORKS)],
    _told_apart("FILE.py, {huggingface: FOLDER}, or a mapping of framework to one of these"),
]


def forms(model: Any) -> list[Any]:
    """Returns the models of all frameworks, files and model folders, of `trainer.model` in any of its forms."""
    return [form for form in (model.values() if _form(model) == FRAMEWORKS else [model]) if form is not None]


def check_huggingface(model: Any, frameworks: Sequence[str], parameters: Mapping[str, Any]) -> None:
    """Raises ValueError for a model folder of another framework than PyTorch's, or model parameters that no framework reads.

    Args:
        model: `trainer.model`.
        frameworks: `trainer.framework`.
        parameters: `trainer.model_parameters`.
    """
    given = model if isinstance(model, dict) else dict.fromkeys(frameworks, model)
    for framework, of_framework in given.items():
        if isinstance(of_framework, HuggingFaceModel) and framework != HUGGINGFACE:
            raise ValueError(
                f"model: a Hugging Face model is trained by the framework {HUGGINGFACE}, received {framework!r}; set framework "
                f"to {HUGGINGFACE}, or give {framework} a file"
            )
    networks = [framework for framework in frameworks if framework not in TREES]
    if parameters and networks and all(isinstance(given.get(f), HuggingFaceModel) for f in networks):
        raise ValueError("model_parameters: a Hugging Face model reads none, its folder describes it; remove it")


def folder_in(document: Any) -> str | None:
    """Returns the folder of a Hugging Face model in the section `trainer` of a document that is not validated yet."""
    model = document.get("model") if isinstance(document, dict) else None
    folders = [form["huggingface"] for form in forms(model) if _form(form) == MODEL and isinstance(form, dict)]
    return next((folder for folder in folders if isinstance(folder, str)), None)
