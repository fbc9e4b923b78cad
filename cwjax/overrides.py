"""Overrides of a dataclass's fields on the command line, and complaints that suggest the nearest right name."""

import contextlib
import dataclasses
import difflib
import io
import itertools
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TypeVar

import tyro

from cwjax.errors import CwjaxError

log = logging.getLogger(__name__)

Settings = TypeVar("Settings")
OldValues = Mapping[str, Mapping[str, str]]


def apply_overrides(
    config: Settings,
    overrides: Sequence[str],
    program: str,
    old_names: Mapping[str, str] = MappingProxyType({}),
    old_values: OldValues = MappingProxyType({}),
) -> Settings:
    """A dataclass with overrides such as `["--train.steps", "10"]`.

    Args:
        config: to be changed; every field of every dataclass in it has an option.
        overrides: as on a command line.
        program: how it is called, for its help.
        old_names: fields' paths by those that they had, which are still taken, with a note.
        old_values: by old paths, what their values are called now.

    Raises:
        CwjaxError: an override is unknown or of the wrong type.
        SystemExit: with status 0 after `--help`.
    """
    known = list(_option_names(type(config)))
    overrides = _by_new_names(list(overrides), old_names, old_values)
    for argument in overrides:
        option = argument.split("=")[0].replace("_", "-")
        if option.startswith("--") and option not in known and option != "--help":
            leaf = [name for name in known if name.rsplit(".")[-1] == option.lstrip("-").rsplit(".")[-1]]
            suggestion = f"; did you mean '{leaf[0]}'?" if leaf else _suggestion(option, known)
            raise CwjaxError(f"unknown option {argument.split('=')[0]}{suggestion}")
    output, complaint = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(complaint):
            return tyro.cli(type(config), default=config, args=overrides, prog=program)
    except SystemExit as stop:
        if not stop.code:
            print(output.getvalue(), end="")
            raise
        raise CwjaxError(_one_line(complaint.getvalue() or output.getvalue())) from None


def explain_unexpected_field(error: TypeError, kind: type) -> str:
    """Turns Python's complaint about a keyword argument of a dataclass in `kind` into one that suggests the right
    field."""
    match = re.match(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", str(error))
    if not match:
        return str(error)
    owner, wrong = match.groups()
    classes = {one.__name__: one for one in _dataclasses_in(kind)}
    names = [one.name for one in dataclasses.fields(classes[owner])] if owner in classes else []
    return f"{owner} has no field '{wrong}'" + _suggestion(wrong, names)


def _dataclasses_in(kind: type) -> Iterator[type]:
    yield kind
    for one in dataclasses.fields(kind):
        if dataclasses.is_dataclass(one.type):
            yield from _dataclasses_in(one.type)


def _option_names(kind: type, prefix: str = "--") -> Iterator[str]:
    for one in dataclasses.fields(kind):
        name = prefix + one.name.replace("_", "-")
        if dataclasses.is_dataclass(one.type):
            yield from _option_names(one.type, name + ".")
        else:
            yield name
            if one.type is bool:
                head, _, last = name.rpartition(".")
                yield f"{head}.no-{last}" if head else f"--no-{last[2:]}"


def _suggestion(wrong: str, names: Sequence[str]) -> str:
    nearest = difflib.get_close_matches(wrong, names, n=1, cutoff=0.5)
    return f"; did you mean '{nearest[0]}'?" if nearest else f"; it has: {', '.join(names)}"


def _by_new_names(overrides: list[str], old_names: Mapping[str, str], old_values: OldValues) -> list[str]:
    """Overrides whose old names are replaced, with a note."""
    renamed: list[str] = []
    values: dict[str, str] = {}
    for argument in overrides:
        option, equals, value = argument.partition("=")
        path = option.removeprefix("--").replace("-", "_")
        if option.startswith("--") and path in old_names:
            values = old_values.get(path, {})
            new = "--" + old_names[path].replace("_", "-")
            log.warning("%s is called %s now", option, new)
            renamed.append(new + equals + values.get(value, value))
        else:
            renamed.append(values.get(argument, argument))
            values = {}
    return renamed


def _one_line(box: str) -> str:
    """The message inside the framed text of a command-line parser, without its title and without help."""
    lines = [re.sub(r"[│╭╮╰╯─]+|-{5,}", " ", line).strip() for line in box.splitlines()]
    _, *message = [line for line in lines if line] or [""]
    message = itertools.takewhile(lambda line: not line.startswith(("Argument helptext", "For full helptext")), message)
    return " ".join(message) or "the command line cannot be understood; see --help"
