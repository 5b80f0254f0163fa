"""Base class and field types of all config sections."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictInt


def _number(value: Any) -> Any:
    # bool is a subclass of int, so it is refused here; PyYAML reads 1e-3 as text, which pydantic converts.
    if isinstance(value, bool):
        raise ValueError("must be a number")
    return value


Number = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
Share = Annotated[Number, Field(ge=0, le=1)]
# The largest count that TensorFlow, PyTorch and MLflow all support.
LARGEST = 2**31 - 1
Positive = Annotated[StrictInt, Field(ge=1, le=LARGEST)]
Names = Annotated[tuple[str, ...], BeforeValidator(lambda v: (v,) if isinstance(v, str) else v)]


class Section(BaseModel):
    """A config section: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")
