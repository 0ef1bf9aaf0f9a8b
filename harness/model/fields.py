"""What campaign and site files are made of: frozen models, checked text, and findings about them.

A value that passes here holds no control character, so it cannot start a new line in a script or in a
log. Whether it is right for a cluster is asked elsewhere (``harness.rules``).
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

Loc = tuple[str | int, ...]

NOTHING: Any = object()  # a finding that quotes no value
SLUG = r"^[a-z0-9][a-z0-9._-]{0,63}$"
_SLUG_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789._-")


@dataclass(frozen=True)
class Finding:
    """One thing wrong, or doubtful, at one place: what is wrong, what is allowed; what to do next."""

    loc: Loc
    text: str
    value: Any = NOTHING
    warning: bool = False


class Findings(ValueError):
    """Everything that a model's rules found; pydantic lets a validator raise only once."""

    def __init__(self, findings: Iterable[Finding]) -> None:
        self.findings = tuple(findings)
        super().__init__("; ".join(f"{place(f.loc)}: {f.text}" for f in self.findings))


class Frozen(BaseModel):
    """Base of the models: frozen, no unknown keys, no silent conversion of types."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
        use_attribute_docstrings=True,
    )


FrozenModel = TypeVar("FrozenModel", bound=Frozen)


def refuse_if_any(model: FrozenModel, findings: Iterable[Finding]) -> FrozenModel:
    """The model itself; raises Findings if there are any. For validators."""
    found = tuple(findings)
    if found:
        raise Findings(found)
    return model


def did_you_mean(given: object, allowed: Iterable[str], otherwise: str) -> str:
    """``did you mean "x"?`` where something allowed resembles ``given``, else ``otherwise``."""
    close = get_close_matches(str(given), list(allowed), n=1, cutoff=0.5)
    return f'did you mean "{close[0]}"?' if close else otherwise


def place(loc: Loc) -> str:
    """A place in a file for people: ``groups[1].scaling.nodes[2]``."""
    text = ""
    for part in loc:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part.replace("-", "_").isidentifier():
            text += f".{part}" if text else part
        else:
            text += f"[{part!r}]"
    return text


def bad_character(text: str) -> str:
    """The first character of ``text`` that no script or log may hold, spelt out; "" when there is none.

    Control characters, line and paragraph separators, and bytes of a path that are not UTF-8.
    """
    for index, character in enumerate(text):
        if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp"):
            return f"{character!r} at position {index + 1}"
    return ""


def _clean(value: str) -> str:
    if bad := bad_character(value):
        raise PydanticCustomError(
            "text", "holds the control character {bad}; write it on one line", {"bad": bad}
        )
    return value


def _filled(value: str) -> str:
    if not value.strip():
        raise PydanticCustomError("text", "is empty; write a text or leave the key out")
    return value


def _slug(value: str) -> str:
    if not 1 <= len(value) <= 64 or not value[0].isalnum() or not set(value) <= _SLUG_CHARACTERS:
        raise PydanticCustomError(
            "text",
            "is used in names of files and jobs, allowed: 1 to 64 of a-z 0-9 . _ -, the first a letter or "
            "digit; rename it",
        )
    return value


def _number(value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise PydanticCustomError("text", "must be a number; write it without quotes")
    if not math.isfinite(value):
        raise PydanticCustomError("text", "must be a finite number; change it")
    return value


Line = Annotated[str, AfterValidator(_clean), Field(max_length=4096)]
"""One line of text, perhaps empty."""

Text = Annotated[str, AfterValidator(_clean), AfterValidator(_filled), Field(max_length=4096)]
"""One line of text, not empty."""

Slug = Annotated[str, AfterValidator(_slug), Field(json_schema_extra={"pattern": SLUG})]
"""A short name that is safe in files, jobs and URLs."""

Number = Annotated[int | float, PlainValidator(_number), WithJsonSchema({"type": "number"})]
"""A finite number; a whole number stays whole: 65536 is not turned into 65536.0."""
