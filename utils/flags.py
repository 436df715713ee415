"""Command lines derived from frozen dataclasses: flags, a YAML file of settings, one line for every mistake.

A field made with `setting` is a flag: its name with dashes, its help and its limits from `setting`, its type
from the annotation. `utils/config.py` holds the dataclasses that commands share.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from utils.arguments import HABITS, as_name, split_arguments
from utils.errors import UserError
from utils.files import atomic_write
from utils.settings import convert, flag_of, helpful_lines

Config = TypeVar("Config")
_LARGEST_YAML = 1_000_000  # bytes


def parse_config(
    cls: type[Config], argv: Sequence[str], *, prog: str, description: str, example: str
) -> Config:
    """Build a command's settings: from the command line, else the --config file, else the defaults.

    Args:
        cls: a dataclass whose fields are made with `setting`.
        argv: the arguments after the script's name.
        prog: the script, such as "train.py".
        description: a line for the help text.
        example: a command line for the help text.

    Raises:
        UserError: bad usage; the message names the flag and the value.
        SystemExit: with 0, after --help or --help-all was printed.
    """
    return cls(**given_settings(cls, argv, prog=prog, description=description, example=example))


def given_settings(
    cls: type[Config], argv: Sequence[str], *, prog: str, description: str, example: str
) -> dict[str, Any]:
    """Return only the settings that the arguments and the --config file give, by field name.

    Arguments and errors are those of `parse_config`.
    """
    fields = _fields(cls)
    wanted = [token for token in argv if token in ("-h", "--help", "--help-all")]
    if wanted:
        print("\n".join(helpful_lines(cls, prog, description, example, everything="--help-all" in wanted)))
        raise SystemExit(0)
    tokens = split_arguments(fields, argv, prog)
    given: dict[str, Any] = {}
    config_file = tokens.pop("config", None)
    tokens.pop("debug", None)
    if config_file is not None:
        for name in tokens:
            if not fields[name].metadata["beside_config"]:
                flag = flag_of(fields[name])
                raise UserError(f"{flag} cannot stand beside --config, which decides; write it there")
        given.update(read_settings(cls, Path(config_file)))
    for name, value in tokens.items():
        if value != []:  # what argparse makes of a positional that is not there
            given[name] = convert(fields[name], value)
    _refuse_company(fields, given)
    return given


def read_settings(cls: type[Config], path: Path) -> dict[str, Any]:
    """Read a YAML file of settings; returns those that it holds, by field name.

    Raises:
        UserError: it cannot be read, or holds an unknown key or a bad value.
    """
    try:
        if path.stat().st_size > _LARGEST_YAML:
            raise UserError(f"{path}: larger than {_LARGEST_YAML} bytes; not a file of settings")
        values = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"--config {path}: cannot read it: {error.strerror or error}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: not a plain YAML file: {reason[:200]}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError(f"{path}: must hold lines `name: value`, such as `epochs: 20`")
    return _checked_keys(_fields(cls), values, str(path))


def config_from_dict(cls: type[Config], values: dict[str, Any], source: str) -> Config:
    """Rebuild a config from `config_as_dict`'s plain values, such as those in a checkpoint.

    Args:
        cls: the dataclass.
        values: by field name.
        source: where the values stand, for messages.

    Raises:
        UserError: an unknown key or a bad value.
    """
    return cls(**_checked_keys(_fields(cls), values, source))


def config_as_dict(config: Any) -> dict[str, Any]:
    """Return the settings as plain values (tuples become lists) that YAML, JSON and a checkpoint can hold."""
    return {field.name: as_plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def as_plain(value: Any) -> Any:
    """Return a setting as YAML, JSON and a checkpoint hold it."""
    return list(value) if isinstance(value, tuple) else value


def as_arguments(cls: type[Config], values: Mapping[str, Any]) -> list[str]:
    """Write settings as the arguments that `given_settings` reads back as the same."""
    arguments = []
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        if field.name not in values:
            continue
        value, flag = values[field.name], flag_of(field)
        if isinstance(value, bool):
            arguments.append(flag if value else flag.replace("--", "--no-", 1))
        elif value is not None:
            items = value if isinstance(value, tuple) else (value,)
            arguments += [flag, *map(str, items)]
    return arguments


def save_args_yaml(config: Any, path: Path | str) -> None:
    """Write the settings so that `--config PATH` repeats them.

    Raises:
        UserError: the file cannot be written.
    """
    save_settings(config_as_dict(config), path)


def save_settings(values: Mapping[str, Any], path: Path | str) -> None:
    """Write plain settings by name as `--config` reads them.

    Raises:
        UserError: the file cannot be written.
    """
    with atomic_write(path, "w") as file:
        yaml.safe_dump(dict(values), file, sort_keys=False, allow_unicode=True, default_flow_style=None)


def _fields(cls: type[Config]) -> dict[str, dataclasses.Field[Any]]:
    return {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]


def _checked_keys(
    fields: dict[str, dataclasses.Field[Any]], values: dict[Any, Any], source: str
) -> dict[str, Any]:
    checked: dict[str, Any] = {}
    for key, value in values.items():
        name = as_name(str(key))
        if name not in fields:
            habit = HABITS.get(name)
            near = [habit] if habit in fields else difflib.get_close_matches(name, fields, n=1)
            raise UserError(
                f"{source}: unknown key {key!r}; " + (f"here it is {near[0]!r}" if near else "see --help-all")
            )
        try:
            checked[name] = convert(fields[name], value)
        except UserError as error:
            raise UserError(f"{source}: {error}") from None
    return checked


def _refuse_company(fields: dict[str, dataclasses.Field[Any]], given: dict[str, Any]) -> None:
    """Refuse what stands beside a flag that takes everything else from elsewhere, such as --resume."""
    for name in given:
        allowed = fields[name].metadata["alone_with"]
        others = [flag_of(fields[other]) for other in given if other != name and other not in (allowed or ())]
        if allowed is not None and given[name] is not None and others:
            free = ", ".join(flag_of(fields[other]) for other in allowed)
            raise UserError(
                f"{flag_of(fields[name])} cannot stand beside {', '.join(others)}: all else comes from the "
                f"checkpoint; only {free} may be given"
            )
