"""Items of a trainer's call, each read alone: one that cannot be read costs its own reward, not the call."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import isfinite
from typing import Annotated, Any, ParamSpec, TypeVar

from pydantic import PlainValidator, TypeAdapter, ValidationError, ValidationInfo

from grm_server.api.schemas import Text, WellFormed
from grm_server.errors import InvalidBody

P = ParamSpec("P")
T = TypeVar("T")


def read_alone(kind: Any) -> PlainValidator:
    """Validates as `kind`, and has its JSON schema, but an invalid value becomes an InvalidBody instead of raising."""
    adapter: TypeAdapter[Any] = TypeAdapter(kind)

    def read(value: object, info: ValidationInfo) -> Any:
        try:
            return adapter.validate_python(value)
        except ValidationError as error:
            # The input is left out: it may hold the policy's text.
            reason = error.errors(include_url=False, include_input=False, include_context=False)[0]["msg"]
            return InvalidBody(f"{info.field_name}: {reason}", param=info.field_name)

    return PlainValidator(read, json_schema_input_type=kind)


ItemText = Annotated[str | InvalidBody, read_alone(Text)]
ItemLabel = Annotated[Any, read_alone(Annotated[Any, WellFormed])]
"""A label of the data set, or an InvalidBody."""


def readable(item: object) -> Any:
    """The item. Raises its InvalidBody if it could not be read."""
    if isinstance(item, InvalidBody):
        raise item
    return item


def or_error(read: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | Exception:
    """The result of `read`, or the error that it raises."""
    try:
        return read(*args, **kwargs)
    except Exception as error:
        return error


_ITEM_CHARS = 128
"""Reading an item costs as much as so many characters, besides its own."""


def chars(items: Iterable[object]) -> int:
    """What reading the items costs, in characters."""
    return sum(_ITEM_CHARS + (len(item) if isinstance(item, str) else 0) for item in items)


def encodable(value: Any) -> Any:
    """A JSON value without what an answer cannot hold: half a surrogate pair becomes U+FFFD; NaN and infinity null."""
    match value:
        case str():
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        case float():
            return value if isfinite(value) else None
        case list():
            return [encodable(item) for item in value]
        case dict():
            return {encodable(name): encodable(item) for name, item in value.items()}
    return value
