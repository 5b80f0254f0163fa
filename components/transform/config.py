"""Config section `tokenizer`."""

from __future__ import annotations

import os
from typing import Any

from pydantic import model_validator

from switchyard.components.config import Names, Positive, Section


class TokenizerConfig(Section):
    """The tokenizer: your own, or that of a model folder of Hugging Face's. Give `code` or `huggingface`.

    Attributes:
        code: `file.py` with `build_tokenizer(spec)`, or `file.py:function`.
        huggingface: folder on this machine that `save_pretrained` wrote, with `tokenizer.json`; with `trainer.model.huggingface`
            it is that folder. Models read `input_ids`, `attention_mask` and, if the model has token types, `token_type_ids`.
        max_length: tokens of a text with `huggingface`, the special ones included; longer texts are cut, shorter ones padded.
            Default: what the model reads, at most 512.
        columns: columns of text for the tokenizer when `preprocessing` is the default one, which makes features of the others.
            Default: all columns of text. A `preprocessing_fn` of your own passes the texts that it returns. With `huggingface`
            one column, or two, which are tokenized as a pair in this order.
    """

    code: str | None = None
    huggingface: str | None = None
    max_length: Positive | None = None
    columns: Names = ()

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"code": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check(self) -> TokenizerConfig:
        if (self.code is None) == (self.huggingface is None):
            raise ValueError("give code, a Python file, or huggingface, a model folder")
        if self.max_length is not None and self.huggingface is None:
            raise ValueError("max_length: only the tokenizer of a Hugging Face model folder reads it; remove it")
        return self

    def check(self, model_folder: str | None, *, own_preprocessing: bool) -> None:
        """Raises ValueError for what the rest of the config excludes.

        Args:
            model_folder: `trainer.model.huggingface`.
            own_preprocessing: whether the config has a `preprocessing_fn`.
        """
        if self.columns and own_preprocessing:
            raise ValueError(
                "tokenizer.columns: only the default preprocessing reads it; remove it, and return the texts unchanged from "
                "preprocessing_fn"
            )
        if model_folder and self.code:
            raise ValueError("tokenizer.code: a Hugging Face model reads the tokenizer of its folder; remove it")
        if model_folder and os.path.normpath(str(self.huggingface)) != os.path.normpath(model_folder):
            raise ValueError(
                f"tokenizer.huggingface: trainer.model reads the tokenizer of its own folder, {model_folder}, received "
                f"{self.huggingface}; remove it"
            )
