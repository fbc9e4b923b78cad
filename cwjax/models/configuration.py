"""Configurations of models, and how they are made of the values of JSON, which may be anything."""

import dataclasses
from collections.abc import Set
from typing import Any, TypeVar, get_args

from cwjax.errors import CwjaxError

Sizes = TypeVar("Sizes")

LARGEST = 1 << 24

ADDED = {"added": True}
"""Metadata of a field that models of earlier versions lack, `field(default=..., metadata=ADDED)`; with its default they
compute what they did."""


def require_fields(kind: type, given: Set[str], place: str) -> None:
    """Raises `CwjaxError` unless all fields of a dataclass are given, but for those added later, and no others."""
    fields = dataclasses.fields(kind)
    missing = {field.name for field in fields if not field.metadata.get("added")} - given
    unknown = given - {field.name for field in fields}
    if missing or unknown:
        raise CwjaxError(
            f"{place} has the wrong entries ({', '.join(sorted(missing | unknown))}); "
            + ("was the model written by a newer version of cwjax?" if unknown else "did somebody shorten it?")
        )


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
        if field.type is int and abs(value) > LARGEST:
            raise CwjaxError(f"{place}: {field.name} is {value}, more than any model has")
        if field.type is float and type(value) not in (int, float):
            raise CwjaxError(f"{place}: {field.name} is {value!r}, where a number is needed")
    try:
        return kind(**values)
    except TypeError as error:
        raise CwjaxError(f"{place}: a value is of the wrong type ({error})") from error


def check_sizes(model: str, config: Any, width: str = "", *heads: str) -> None:
    """Checks a configuration whose fields are sizes, numbers, and literals.

    Args:
        model: its name, for messages.
        config: a dataclass.
        width: the field that has to divide by each of `heads`.
        heads: fields.

    Raises:
        CwjaxError: a size is below 1, a literal is none of its type, or the width does not divide.
    """
    for field in dataclasses.fields(config):
        value, known = getattr(config, field.name), get_args(field.type)
        if field.type is int and value < 1:
            raise CwjaxError(f"{model}'s {field.name} is {value}: it must be at least 1")
        if known and value not in known:
            raise CwjaxError(f"{model}'s {field.name} is {value!r}: only {' and '.join(known)} are known")
    for name in heads:
        total, parts = getattr(config, width), getattr(config, name)
        if total % parts:
            raise CwjaxError(f"{model}'s {width} {total} does not divide by {name} {parts}: choose a multiple of it")
