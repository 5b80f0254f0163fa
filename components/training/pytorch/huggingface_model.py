"""`build_model` of a Hugging Face model folder. A copy of this file is in every snapshot, beside the folder's config and weights.

Transformers and PEFT are imported when a model is built, so that checks of the code import neither.
"""

from __future__ import annotations

import copy
import json
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from switchyard.components.errors import UserError, first_line
from switchyard.components.progress import warn
from switchyard.components.training.model_spec import ModelSpec

_HERE = Path(__file__).parent
_IDS, _MASK, _TYPES = "input_ids", "attention_mask", "token_type_ids"
# Only heads for classification use it, so a folder of another task may lack it.
_POOLER = "pooler"


def build_model(spec: ModelSpec) -> nn.Module:
    """Returns the folder's model with a head for the task, and a LoRA adapter if the config asks for one.

    Raises:
        UserError: the weights are not those of the config, or the data have features that the model does not read.
    """
    _check_features(spec)
    # Nothing would be looked up without the variable either: the folder is local, and its code is refused.
    with _variable("HF_HUB_OFFLINE", "1"):
        return _model(spec)


@contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name, None)
        if before is not None:
            os.environ[name] = before


def _model(spec: ModelSpec) -> TextModel:
    from transformers import AutoModelForSequenceClassification
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    network, loaded = AutoModelForSequenceClassification.from_pretrained(
        _HERE,
        num_labels=spec.outputs,
        dtype=torch.float32,
        ignore_mismatched_sizes=True,
        local_files_only=True,
        output_loading_info=True,
        trust_remote_code=False,
        use_safetensors=True,
    )
    untrained = sorted({*loaded["missing_keys"], *(key for key, *_ in loaded["mismatched_keys"])})
    _check_weights(network, untrained)
    _check_vocabulary(network, spec)
    settings = json.loads((_HERE / "settings.json").read_text(encoding="utf-8"))
    if settings["lora"]:
        network = _with_lora(network, settings["lora"], untrained)
    return TextModel(network, [f.name for f in spec.features])


class TextModel(nn.Module):
    """Tokens -> logits, {name: (B, length)} -> (B, outputs).

    Args:
        network: Transformers' model, with or without PEFT's adapter.
        inputs: names of the features that it reads.
    """

    def __init__(self, network: Any, inputs: Iterable[str]) -> None:
        super().__init__()
        self.network, self._inputs = network, tuple(inputs)

    def forward(self, features: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Returns the logits."""
        logits: torch.Tensor = self.network(**{name: features[name] for name in self._inputs}).logits
        return logits

    def for_export(self) -> nn.Module:
        """Returns the model that is exported: a copy with the adapter in the weights, or the model itself without one."""
        if not hasattr(self.network, "merge_and_unload"):
            return self
        return TextModel(copy.deepcopy(self.network).merge_and_unload(), self._inputs)


def _check_features(spec: ModelSpec) -> None:
    names = {f.name for f in spec.features}
    if others := sorted(names - {_IDS, _MASK, _TYPES}):
        raise UserError(
            f"trainer.model: a Hugging Face model reads texts alone, and the data have also {', '.join(others)[:200]}; exclude "
            "these columns (data.exclude), or return the texts alone from preprocessing_fn"
        )


def _check_weights(network: Any, untrained: list[str]) -> None:
    """Warns of a new head; raises UserError if weights of the body are missing, with which the training would begin anew."""
    body = f"{network.base_model_prefix}."
    if lost := [name for name in untrained if name.startswith(body) and _POOLER not in name]:
        raise UserError(
            f"trainer.model: model.safetensors lacks {len(lost)} weights that config.json describes, such as {lost[0]}, or has "
            "them in another size; save config and weights again together"
        )
    if untrained:
        warn(f"trainer.model: not in the folder, so untrained at first: {', '.join(untrained)}"[:500])


def _check_vocabulary(network: Any, spec: ModelSpec) -> None:
    known = network.get_input_embeddings().num_embeddings
    for feature in spec.features:
        if feature.name == _IDS and (feature.vocabulary_size or 0) > known:
            raise UserError(
                f"trainer.model: the tokenizer has {feature.vocabulary_size} tokens, and the model {known}; save the two that "
                "belong together, after model.resize_token_embeddings if tokens were added"
            )


def _with_lora(network: Any, settings: Mapping[str, Any], untrained: Iterable[str]) -> Any:
    from peft import LoraConfig, TaskType, get_peft_model

    # The head is trained as a whole, and so is whatever the folder lacks.
    heads = [name for name, part in network.named_children() if name != network.base_model_prefix and list(part.parameters())]
    new = {name.rpartition(".")[0] for name in untrained if name.partition(".")[0] not in heads}
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=settings["rank"],
        lora_alpha=settings["alpha"],
        lora_dropout=settings["dropout"],
        target_modules=list(settings["modules"]) or None,
        modules_to_save=[*heads, *sorted(new)],
    )
    layers = {name.rpartition(".")[2] for name, part in network.base_model.named_modules() if hasattr(part, "weight")}
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")  # it is corrected for layers of this kind
            return get_peft_model(network, config)
    except ValueError as error:  # no choice for this type of model, or no layer of this name
        raise UserError(
            f"trainer.model.lora.modules: {first_line(error)}. Name layers of the model: {', '.join(sorted(layers))}"[:600]
        ) from error
