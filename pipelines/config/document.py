"""Reads YAML from untrusted sources, within limits and restricted to values that a config can hold.

PyYAML alone has no limits on size and depth, lets aliases multiply (a few lines can expand to gigabytes) and a value refer to
itself, keeps the last of two equal keys, and raises Python's own errors for impossible numbers and dates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from typing import Any, NoReturn

import yaml
from yaml.events import AliasEvent
from yaml.nodes import MappingNode, Node, ScalarNode

from switchyard.components.text.redaction import mask
from switchyard.pipelines.config.spelling import Spelled

# Limit for the text, and for its value with all aliases expanded.
LIMIT_BYTES = 1 << 20
LIMIT_DEPTH = 50
# PyYAML needs a minute for the millions of values that fit into a mebibyte.
LIMIT_VALUES = 50_000
_NUMBER_CHARACTERS = 100
_INTEGER_BITS = 63
_TAG = "tag:yaml.org,2002:"
_MERGE = f"{_TAG}merge"
_NO_TEXTS = tuple(f"{_TAG}{name}" for name in ("null", "bool", "int", "float", "timestamp"))


class ConfigYamlError(Exception):
    """A problem in a YAML text, with its line if it has one."""

    def __init__(self, why: str, line: int | None = None) -> None:
        super().__init__(why if line is None else f"line {line}: {why}")
        self.why = why


def read_yaml(text: str) -> Any:
    """Returns the value of a YAML text: mappings, lists, texts, and `Spelled` for scalars that YAML reads as another type.

    Keys stay as they are written, and dates stay texts.

    Raises:
        ConfigYamlError: the text is no YAML, exceeds the limits, repeats a key, or holds a value that no config can hold.
    """
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > LIMIT_BYTES:
        raise ConfigYamlError(f"is larger than {LIMIT_BYTES:,} bytes; put long content into a file of its own")
    try:
        return _Loader(text).get_single_data()
    except yaml.YAMLError as error:
        raise ConfigYamlError(f"is not valid YAML: {' '.join(str(error).split())}") from None


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with limits."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        # Size composed so far with aliases expanded, current depth, deepest level reached, and number of values.
        self._size = self._depth = self._deepest = self._values = 0
        # Complete node -> its size and height.
        self._whole: dict[int, tuple[int, int]] = {}

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        line = self.peek_event().start_mark.line
        if self.check_event(AliasEvent):
            node = super().compose_node(parent, index)
            self._count_alias(node, line)
            return node
        self._depth += 1
        self._values += 1
        if self._values > LIMIT_VALUES:
            _refuse(line, f"holds more than {LIMIT_VALUES:,} keys and values; put long content into a file of its own")
        before, reached = self._size, self._deepest
        self._deepest = self._depth
        self._check_depth(line)
        node = super().compose_node(parent, index)
        self._size += 1 + (len(node.value) if isinstance(node, ScalarNode) else 0)
        self._whole[id(node)] = (self._size - before, self._deepest - self._depth)
        self._deepest = max(reached, self._deepest)
        self._depth -= 1
        return node

    def _count_alias(self, node: Node | None, line: int) -> None:
        if id(node) not in self._whole:
            _refuse(line, "an alias (*) refers to a value that contains it; write the value out")
        size, height = self._whole[id(node)]
        self._size += size
        self._deepest = max(self._deepest, self._depth + 1 + height)
        self._check_depth(line)
        if self._size > LIMIT_BYTES:
            _refuse(line, f"with its aliases (*) expanded this is larger than {LIMIT_BYTES:,} bytes; use fewer")

    def _check_depth(self, line: int) -> None:
        if self._deepest > LIMIT_DEPTH:
            _refuse(line, f"is nested deeper than {LIMIT_DEPTH} levels; a config needs fewer")

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        # A tag may be on a node of another kind; PyYAML reports it.
        if isinstance(node, MappingNode):
            for key, _ in node.value:
                if isinstance(key, ScalarNode) and key.tag in _NO_TEXTS:
                    key.tag = f"{_TAG}str"
            self._refuse_twice(node)
        return super().construct_mapping(node, deep=deep)

    def _refuse_twice(self, node: MappingNode) -> None:
        """Refuses duplicate keys, compared by their text: 1 and "1" are the same key."""
        seen: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line
            if not isinstance(key, ScalarNode):
                _refuse(line, "a key must be a text, a number or a boolean, received a list or a mapping")
            name = key.value if key.tag == _MERGE else self.construct_object(key)
            if name in seen:
                _refuse(line, f"the key {_short(key.value)} is a duplicate of line {seen[name] + 1}; keep one of them")
            seen[name] = line

    def construct_yaml_null(self, node: ScalarNode) -> Any:
        super().construct_yaml_null(node)
        return Spelled(None, str(node.value))

    def construct_yaml_bool(self, node: ScalarNode) -> Any:
        if str(node.value).lower() not in self.bool_values:
            _refuse(node.start_mark.line, f"{_short(str(node.value))} is not a boolean; write true or false")
        return Spelled(super().construct_yaml_bool(node), str(node.value))

    def construct_yaml_int(self, node: ScalarNode) -> Any:
        return self._number(node, super().construct_yaml_int)

    def construct_yaml_float(self, node: ScalarNode) -> Any:
        return self._number(node, super().construct_yaml_float)

    def _number(self, node: ScalarNode, construct: Callable[[ScalarNode], float]) -> Spelled:
        line, shown = node.start_mark.line, _short(str(node.value))
        too_long = f"the number {shown} is too long; whole numbers have at most {_INTEGER_BITS} bits. Quote it if it is a text"
        # Python's conversion takes minutes for some texts of a mebibyte, and raises for others.
        if len(node.value) > _NUMBER_CHARACTERS:
            _refuse(line, too_long)
        try:
            found = construct(node)
        except (ValueError, OverflowError):
            _refuse(line, f"{shown} is not a number; quote it if it is a text")
        if isinstance(found, float) and math.isinf(found) and "inf" not in node.value.lower():
            _refuse(line, f"the number {shown} is larger than any that a config can hold")
        if isinstance(found, int) and found.bit_length() > _INTEGER_BITS:
            _refuse(line, too_long)
        return Spelled(found, str(node.value))

    def construct_yaml_str(self, node: ScalarNode) -> str:
        text = super().construct_yaml_str(node)
        if not is_text(text):
            _refuse(node.start_mark.line, f"{_short(text)} holds a character that no text can hold (NUL, or half of a pair)")
        return text

    def construct_undefined(self, node: Node) -> NoReturn:
        _refuse(
            node.start_mark.line,
            f"the tag {node.tag!r} is not valid YAML for a config; write a text, a number, a list or a mapping",
        )


def is_text(text: str) -> bool:
    """Whether a text can be a file name or file content: no NUL, and encodable as UTF-8."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def _refuse(line: int, why: str) -> NoReturn:
    raise ConfigYamlError(why, line + 1)


def _short(text: str) -> str:
    shown = ascii(mask(text))
    return shown if len(shown) <= 60 else f"{shown[:40]}... ({len(text):,} characters)"


_Loader.add_constructor(f"{_TAG}null", _Loader.construct_yaml_null)
_Loader.add_constructor(f"{_TAG}bool", _Loader.construct_yaml_bool)
_Loader.add_constructor(f"{_TAG}int", _Loader.construct_yaml_int)
_Loader.add_constructor(f"{_TAG}float", _Loader.construct_yaml_float)
for _name in ("str", "timestamp", "value"):
    _Loader.add_constructor(_TAG + _name, _Loader.construct_yaml_str)
for _name in ("binary", "omap", "pairs", "set"):
    _Loader.add_constructor(_TAG + _name, _Loader.construct_undefined)
_Loader.add_constructor(None, _Loader.construct_undefined)
