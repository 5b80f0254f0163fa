"""What every part of the config is made of: a frozen model that refuses unknown keys, and numbers that are numbers."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictInt


def _number(value: Any) -> Any:
    # bool is an int in Python, and PyYAML reads 1e-3 as text: refuse the one, let pydantic convert the other.
    if isinstance(value, bool):
        raise ValueError("must be a number")
    return value


Number = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
Share = Annotated[Number, Field(ge=0, le=1)]
# As much as TensorFlow, PyTorch and MLflow can count.
LARGEST = 2**31 - 1
Positive = Annotated[StrictInt, Field(ge=1, le=LARGEST)]
Names = Annotated[tuple[str, ...], BeforeValidator(lambda v: (v,) if isinstance(v, str) else v)]


class Section(BaseModel):
    """A part of the config: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")
