"""Types of single values in a campaign: counts, steps, minutes, parameters, each with its limits and its words."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

Count = Annotated[int, Field(ge=1, le=100_000)]
Steps = Annotated[int, Field(ge=1, le=1_000_000_000)]
Step = Annotated[int, Field(ge=0, le=1_000_000_000)]
Minutes = Annotated[int, Field(ge=1, le=43_200)]  # up to 30 days
Seed = Annotated[
    int, Field(ge=0, le=2**31 - 1)
]  # with a repeat added it still fits 32 bits, which numpy wants


def _param(value: Any) -> Any:
    values = value if isinstance(value, tuple) else (value,)
    for v in values:
        if not isinstance(v, str | int | float) or (isinstance(v, float) and not math.isfinite(v)):
            raise PydanticCustomError(
                "text", "must be a number, a text, true, false, or a list of these; change it"
            )
    if not values:
        raise PydanticCustomError("text", "is an empty list; give a value or leave the key out")
    return value


_SCALAR_SCHEMA = [{"type": "string"}, {"type": "number"}, {"type": "boolean"}]
ParamValue = Annotated[
    Any,
    BeforeValidator(_param),
    WithJsonSchema({"anyOf": [*_SCALAR_SCHEMA, {"type": "array", "items": {"anyOf": _SCALAR_SCHEMA}}]}),
]
