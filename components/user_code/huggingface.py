"""Model folders of Hugging Face's `save_pretrained`: what is refused, and the snapshots that stages and bundles load.

A folder is read as data alone: JSON and safetensors. Nothing here imports Transformers. The modules with `build_model`
and `build_tokenizer` are copied into the snapshots, beside the files that they read, and are then loaded like the user's code.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from switchyard.components.errors import UserError
from switchyard.components.text.visible import in_a_line
from switchyard.components.user_code import huggingface_tokenizer, safetensors_files
from switchyard.components.user_code.loading import UserCode
from switchyard.components.user_code.store import stored

LIBRARIES = ("transformers", "tokenizers", "peft")
SETTINGS = "settings.json"
# Formats of weights that are pickles.
_PICKLED = frozenset((".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib"))
_TOKENIZER, _CONFIG, _ABOUT_TOKENIZER, _TOKENS = (
    "tokenizer.json",
    "config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
)
_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
# `tokenizer.json` and vocabularies are data, and large.
_DATA = frozenset((_TOKENIZER, "vocab.json", "added_tokens.json", _INDEX))
_LARGEST_JSON = 16 << 20
# Keys of the config that may name a repository with compiled code.
_ATTENTION = ("attn_implementation", "_attn_implementation", "_attn_implementation_internal")
# The length of most models that have a limit. Longer texts are padded to it, so that it is chosen, not the default.
_LONGEST_DEFAULT = 512


def check_installed() -> None:
    """Raises UserError, which names the extra, if a library is not installed; imports nothing."""
    missing = [name for name in LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"huggingface: {' and '.join(missing)} not installed; install the extra: pip install 'switchyard[huggingface]'"
        )


def tokenizer_snapshot(folder: str, columns: tuple[str, ...], max_length: int | None, store: Path, *, key: str) -> UserCode:
    """Returns `build_tokenizer` of a model folder's tokenizer, copied to `store`.

    Args:
        folder: the model folder, absolute.
        columns: the texts, of a pair in its order; empty for the only one.
        max_length: length of the arrays; None for the model's own, at most 512.
        store: folder of snapshots.
        key: config key for the errors.

    Raises:
        UserError: the folder is refused, or the model takes no texts of this length.
    """
    checked = _Folder(folder, key)
    return _snapshot(
        Path(huggingface_tokenizer.__file__),
        "build_tokenizer",
        {"columns": columns, **checked.tokenizer_settings(max_length)},
        [checked.path / _TOKENIZER],
        store,
        key,
    )


def model_snapshot(code: Path, folder: str, settings: Mapping[str, Any], store: Path, *, key: str) -> UserCode:
    """Returns `build_model` of a model folder, copied to `store`.

    Args:
        code: the module with `build_model(spec)`, which reads `settings.json`, the config and the weights beside it.
        folder: the model folder, absolute.
        settings: content of `settings.json`.
        store: folder of snapshots.
        key: config key for the errors.

    Raises:
        UserError: the folder is refused.
    """
    checked = _Folder(folder, key)
    return _snapshot(code, "build_model", settings, [checked.path / _CONFIG, *checked.weights()], store, key)


def _snapshot(code: Path, function: str, settings: Mapping[str, Any], files: list[Path], store: Path, key: str) -> UserCode:
    contents: dict[str, Path | bytes] = {f.name: f for f in files}
    contents |= {code.name: code.read_bytes(), SETTINGS: json.dumps(settings, sort_keys=True).encode()}
    return UserCode(str(stored(contents, store, key) / code.name), function)


class _Folder:
    """A model folder that may be loaded; raises UserError for any other."""

    def __init__(self, folder: str, key: str) -> None:
        self.path, self._key = Path(folder), key
        if "://" in folder or not self.path.is_dir():
            raise self._refused("no such folder. Nothing is downloaded: give a folder on this machine that save_pretrained wrote")
        files = sorted(f for f in self.path.rglob("*") if f.is_file())
        if pickled := [f.relative_to(self.path).as_posix() for f in files if f.suffix in _PICKLED]:
            raise self._refused(
                f"holds pickles, which can run code when they are loaded: {in_a_line(pickled)}. Save the weights as safetensors "
                "(save_pretrained) in a folder of their own"
            )
        if code := [f.relative_to(self.path).as_posix() for f in files if f.suffix == ".py"]:
            raise self._refused(f"holds code, which is not run: {in_a_line(code)}. Use a model that Transformers has itself")
        for file in files:
            if file.suffix == ".json" and file.name not in _DATA and "auto_map" in self._json(file):
                raise self._refused(
                    f"{file.name} has an auto_map, which names code of the folder's own (remote code), which is not run. "
                    "Use a model that Transformers has itself"
                )
        if (self.path / "adapter_config.json").exists():
            raise self._refused("is a LoRA adapter; merge it into its model first: merge_and_unload() and save_pretrained")
        if not (self.path / _CONFIG).is_file():
            raise self._refused(f"has no {_CONFIG}; give the folder that save_pretrained wrote")
        self.config = self._json(self.path / _CONFIG)
        if not isinstance(self.config.get("model_type"), str):
            raise self._refused(f"{_CONFIG} names no model_type; give the folder that save_pretrained wrote")
        if kernels := [key for key in _ATTENTION if "/" in str(self.config.get(key, ""))]:
            raise self._refused(
                f"{_CONFIG} has an {kernels[0]} of a hub, {str(self.config[kernels[0]])[:100]!r}, which is code and is not run. "
                "Remove it"
            )
        if "quantization_config" in self.config:
            raise self._refused("its weights are quantized, which cannot be trained and exported; use the model before that")
        if not (self.path / _TOKENIZER).is_file():
            raise self._refused(
                f"has no tokenizer: no {_TOKENIZER}. Save it there: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
            )

    def weights(self) -> list[Path]:
        """Returns the files of the weights, with their index if they are several; loads none of them."""
        if (self.path / _WEIGHTS).is_file():
            return self._intact([self.path / _WEIGHTS], {})
        if not (self.path / _INDEX).is_file():
            raise self._refused(f"has no weights as safetensors: no {_WEIGHTS}. Save the model with save_pretrained")
        named = self._json(self.path / _INDEX).get("weight_map")
        names = sorted({str(n) for n in named.values()}) if isinstance(named, dict) else []
        for name in names or [""]:
            if Path(name).name != name or not name.endswith(".safetensors") or not (self.path / name).is_file():
                raise self._refused(f"{_INDEX} names the file {name[:100]!r}, which is not in the folder; save the model again")
        return [self.path / _INDEX, *self._intact([self.path / name for name in names], dict(named or {}))]

    def _intact(self, files: list[Path], places: Mapping[str, Any]) -> list[Path]:
        if why := safetensors_files.fault(files, places, self.config):
            raise self._refused(f"{why}. Copy the folder again, or save config and weights again together")
        return files

    def tokenizer_settings(self, max_length: int | None) -> dict[str, Any]:
        """Returns what `huggingface_tokenizer` must know beside `tokenizer.json`."""
        about = self._json(self.path / _ABOUT_TOKENIZER) if (self.path / _ABOUT_TOKENIZER).is_file() else {}
        tokens = self._json(self.path / _TOKENS) if (self.path / _TOKENS).is_file() else {}
        pad = about.get("pad_token") or tokens.get("pad_token")
        pad = pad.get("content") if isinstance(pad, dict) else pad
        if not isinstance(pad, str):
            raise self._refused(
                "its tokenizer has no pad_token, and rows are padded to one length; set it, and pad_token_id in the model's "
                "config, and save both again"
            )
        limits = [n for n in (about.get("model_max_length"), self.config.get("max_position_embeddings")) if isinstance(n, int)]
        longest = min((n for n in limits if n > 0), default=None)
        if max_length is not None and longest is not None and max_length > longest:
            raise UserError(f"tokenizer.max_length: {max_length} tokens, and the model in {self.path} reads {longest}; use fewer")
        return {
            "max_length": max_length or min(longest or _LONGEST_DEFAULT, _LONGEST_DEFAULT),
            "pad_token": pad,
            "padding_side": about.get("padding_side", "right"),
            "truncation_side": about.get("truncation_side", "right"),
            # Models with one type, and those without, take none.
            "token_types": _whole(self.config.get("type_vocab_size")),
        }

    def _json(self, file: Path) -> dict[str, Any]:
        try:
            if file.stat().st_size > _LARGEST_JSON:
                raise ValueError(f"larger than {_LARGEST_JSON >> 20} MiB")
            found = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise self._refused(f"{file.name} cannot be read: {error}"[:300]) from None
        if not isinstance(found, dict):
            return {}
        return found

    def _refused(self, why: str) -> UserError:
        return UserError(f"{self._key}: {self.path}: {why}.")


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and value > 1 else 0
