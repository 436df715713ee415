"""One field of a config: what it says of itself, what values it takes, and its lines in the help text."""

from __future__ import annotations

import dataclasses
import math
import re
import shutil
import textwrap
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from utils.errors import UserError

SWITCHES = ("bool", "bool | None")  # types of the fields that are flags without a value


def setting(
    default: Any,
    help: str,
    *,
    group: str | None = None,
    within: str | None = None,
    choices: Sequence[str] | None = None,
    flag: str | None = None,
    aliases: Sequence[str] = (),
    nargs: str | None = None,
    bare: str | None = None,
    metavar: str | None = None,
    positional: bool = False,
    alone_with: Sequence[str] | None = None,
    beside_config: bool = True,
) -> Any:
    """Describe a field of a config dataclass; its type is the field's annotation.

    Args:
        default: the value when nobody gives one.
        help: a line for --help, with the unit.
        group: the heading under which only --help-all shows it; None for a daily flag, which --help shows.
        within: limits of a number as an interval, such as "[0, 1)".
        choices: the only values allowed.
        flag: the flag where it is not the field's name with dashes.
        aliases: other flags for the same field.
        nargs: argparse's count of values: None, "?", "+" or "*".
        bare: the value of a flag that stands without one (nargs "?").
        metavar: what the value is called in the help text.
        positional: given without a flag.
        alone_with: names of the only fields that may be given beside this one.
        beside_config: may be given on the command line beside --config.
    """
    metadata = {key: value for key, value in locals().items() if key != "default"}
    return dataclasses.field(default=default, metadata=metadata)


def flag_of(field: dataclasses.Field[Any]) -> str:
    """Return the flag of a field, or the name of a positional one."""
    if field.metadata["positional"]:
        return str(field.metadata["metavar"])
    return field.metadata["flag"] or "--" + field.name.replace("_", "-")


def check_settings(config: Any) -> None:
    """Hold every field of a config to its limits and choices.

    Raises:
        UserError: names the flag and the value.
    """
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, str) and not value.strip():
            raise UserError(f"{flag_of(field)} {value!r}: is empty")
        choices = field.metadata["choices"]
        if choices and value is not None:
            for item in value if isinstance(value, tuple) else (value,):
                if item not in choices:
                    raise UserError(f"{flag_of(field)} {item}: choose from {', '.join(choices)}")
        limits = field.metadata["within"]
        if limits and value is not None and not _is_within(value, limits):
            raise UserError(f"{flag_of(field)} {value}: must be {_in_words(limits)}")


def convert(field: dataclasses.Field[Any], value: Any) -> Any:
    """Turn text of a command line, or a plain value of a YAML file, into the field's type.

    The types are str, int, float, bool, tuple[str, ...] and tuple[int, int], each with or without `| None`;
    the dataclass's module postpones annotations, so that they are text.

    Raises:
        UserError: it cannot be; names the flag and the value.
    """
    kind, _, optional = str(field.type).partition(" | ")
    if value is None:
        if optional:
            return None
        raise UserError(f"{flag_of(field)}: needs a value")
    if kind.startswith("tuple"):
        return _convert_list(field, kind, value)
    if isinstance(value, (list, tuple, dict)):
        raise UserError(f"{flag_of(field)} {value}: takes a single value")
    return _CONVERTERS[kind](flag_of(field), value)


def _convert_list(field: dataclasses.Field[Any], kind: str, value: Any) -> tuple[Any, ...]:
    items = list(value) if isinstance(value, (list, tuple)) else [value]
    if kind == "tuple[int, int]":  # (height, width); one number is both
        items = [part for item in items for part in re.split("[x,]", str(item))]
        numbers = tuple(_to_int(flag_of(field), item) for item in items)
        if len(numbers) not in (1, 2):
            raise UserError(
                f"{flag_of(field)} {' '.join(map(str, items))}: takes one number or height and width"
            )
        return numbers * 2 if len(numbers) == 1 else numbers
    return tuple(_to_str(flag_of(field), item) for item in items)


def _to_str(flag: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise UserError(f"{flag} {value}: needs text; in YAML write it in quotes")
    return str(value)


def _to_int(flag: str, value: Any) -> int:
    if not isinstance(value, bool):
        with suppress(ValueError):
            return int(str(value))
    raise UserError(f"{flag} {value}: needs a whole number")


def _to_float(flag: str, value: Any) -> float:
    if not isinstance(value, bool):
        with suppress(ValueError):
            number = float(value)
            if math.isfinite(number):
                return number
    raise UserError(f"{flag} {value}: needs a finite number")


def _to_bool(flag: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise UserError(f"{flag} {value}: needs true or false")
    return value


_CONVERTERS: dict[str, Callable[[str, Any], Any]] = {
    "str": _to_str,
    "int": _to_int,
    "float": _to_float,
    "bool": _to_bool,
}


def _is_within(value: float, limits: str) -> bool:
    low, high = (float(bound) for bound in limits[1:-1].split(","))
    above = value > low if limits[0] == "(" else value >= low
    below = value < high if limits[-1] == ")" else value <= high
    return above and below  # False for nan


def _in_words(limits: str) -> str:
    low, high = (bound.strip() for bound in limits[1:-1].split(","))
    words = [f"above {low}" if limits[0] == "(" else f"at least {low}"]
    if high != "inf":
        words.append(f"below {high}" if limits[-1] == ")" else f"at most {high}")
    return " and ".join(words)


def helpful_lines(cls: type, prog: str, description: str, example: str, everything: bool) -> list[str]:
    """Write the help text of a command: the daily flags, or all of them under their headings."""
    fields = dataclasses.fields(cls)
    positional = [field for field in fields if field.metadata["positional"]]
    lines = [f"usage: python {prog} {' '.join([*map(flag_of, positional), '[flags]'])}", "", description, ""]
    for field in fields:
        if field.metadata["group"] is None:
            lines += _help_of(field)
    groups = dict.fromkeys(field.metadata["group"] for field in fields if field.metadata["group"])
    for group in sorted(groups, key="output".__eq__) if everything else ():  # which comes last
        lines += ["", f"{group}:"]
        for field in fields:
            if field.metadata["group"] == group:
                lines += _help_of(field)
    lines += [
        "",
        *_entry(
            "--config FILE",
            "settings from a YAML file such as a run's args.yaml; flags given here come first",
        ),
        *_entry("--debug", "show the traceback of an error"),
    ]
    if not everything:
        lines += _entry("--help-all", "show all flags")
    return [*lines, "", f"example: {example}"]


def _help_of(field: dataclasses.Field[Any]) -> list[str]:
    flag = flag_of(field)
    default = field.default
    if field.type in SWITCHES:
        name = flag.replace("--", "--no-", 1) if default else flag
        name = f"{flag}, {flag.replace('--', '--no-', 1)}" if default is None else name
        return _entry(name, field.metadata["help"])
    shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
    note = f" (default: {shown})" if default not in (None, ()) else ""
    names = ", ".join([flag, *field.metadata["aliases"]])
    value = "" if field.metadata["positional"] else f" {field.metadata['metavar'] or field.name.upper()}"
    return _entry(names + value, field.metadata["help"] + note)


def _entry(name: str, text: str) -> list[str]:
    width = max(60, min(110, shutil.get_terminal_size((100, 24)).columns - 2))
    wrapped = textwrap.wrap(text, width - 30, break_long_words=False, break_on_hyphens=False)
    first = [f"  {name:<27} {wrapped[0]}"] if len(name) <= 27 else [f"  {name}", f"{'':30}{wrapped[0]}"]
    return first + [f"{'':30}{line}" for line in wrapped[1:]]
