"""Configurations from the values of JSON, which may be anything."""

import dataclasses
from typing import Any, TypeVar

from cwjax.errors import CwjaxError

Sizes = TypeVar("Sizes")


def configured(kind: type[Sizes], values: dict[str, Any], place: str) -> Sizes:
    """A dataclass of sizes and names.

    Args:
        kind: the dataclass.
        values: of its fields, or of some.
        place: where they are from, for messages.

    Raises:
        CwjaxError: a value is of the wrong type or impossible.
    """
    for field in dataclasses.fields(kind):
        value = values.get(field.name, field.default)
        if field.type is int and type(value) is not int:
            raise CwjaxError(f"{place}: {field.name} is {value!r}, where a whole number is needed")
        if field.type is float and type(value) not in (int, float):
            raise CwjaxError(f"{place}: {field.name} is {value!r}, where a number is needed")
    try:
        return kind(**values)
    except TypeError as error:
        raise CwjaxError(f"{place}: a value is of the wrong type ({error})") from error
