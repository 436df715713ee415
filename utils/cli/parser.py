"""Command-line parser for dataclass configs: flags, help text, and YAML files of settings.

A field made with `setting` is a flag: its name with dashes, its type from the annotation, its help text and
limits from `setting`. The same fields are the keys of `args.yaml`, `--config` and a checkpoint's config.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import functools
import math
import re
import shutil
import textwrap
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml

from utils.cli.errors import UserError
from utils.cli.files import atomic_write, check_output_files, read_yaml
from utils.cli.version import version_lines

Config = TypeVar("Config")
Field = dataclasses.Field[Any]
_METAVARS: dict[Any, str] = {int: "N", tuple[int, int]: "N", float: "X"}

# Our field -> flags and keys of other repositories.
_FOREIGN_NAMES = {
    "sources": "source input",
    "conf": "conf_thres conf_threshold confidence",
    "nms_iou": "iou iou_thres iou_threshold nms_thres",
    "max_det": "max_detections",
    "batch_size": "batch bs freeze_batch_size unfreeze_batch_size",
    "format": "include",
    "half": "fp16",
    "opset": "opset_version",
    "amp": "fp16 half",
    "imgsz": "img img_size image_size input_size input_shape size",
    "data": "data_dir data_path dataset voc_path",
    "weights": "model model_path checkpoint pretrained",
    "epochs": "epoch max_epochs num_epochs unfreeze_epoch max_batches",
    "freeze_epochs": "freeze freeze_epoch freeze_train",
    "lr": "lr0 init_lr learning_rate",
    "lr_schedule": "lr_decay_type policy",
    "optimizer": "optimizer_type",
    "mosaic": "mosaic_prob",
    "mixup": "mixup_prob",
    "close_mosaic": "special_aug_ratio",
    "eval_interval": "eval_period",
    "accumulate": "subdivisions",
    "workers": "num_workers",
    "device": "gpu gpus cuda",
    "classes": "names classes_path",
    "anchors": "anchors_path",
    "label_smoothing": "label_smooth",
    "project": "out output output_dir save_dir",
    "save": "nosave",
    "txt": "save_txt",
    "scores": "save_conf txt_scores",
    "flip_test": "augment tta",
    "tile": "tiling slice",
    "crop": "save_crop",
    "xml": "save_xml",
    "view": "view_img show",
    "val": "noval eval_flag",
    "phi": "attention",
}


def setting(
    default: Any,
    help: str | Callable[[], str],
    *,
    group: str | None = None,
    within: str | None = None,
    choices: Sequence[str] | None = None,
    flag: str | None = None,
    aliases: Sequence[str] = (),
    bare: str | None = None,
    metavar: str | None = None,
    positional: bool = False,
    alone_with: Sequence[str] | None = None,
    beside_config: bool = True,
    is_output: bool = False,
) -> Any:
    """Describe a field of a config dataclass; its type is the field's annotation.

    Args:
        default: the value when the user gives none.
        help: a line for --help, with the unit; a function where it depends on what is registered.
        group: the heading under which only --help-all shows it; None for a daily flag, which --help shows.
        within: limits of a number as an interval, such as "[0, 1)".
        choices: the only values allowed.
        flag: the flag where it is not the field's name with dashes.
        aliases: other flags for the same field.
        bare: the value of a flag that is given without one; None if it needs one.
        metavar: what the value is called in the help text; by default N for whole numbers, X for others.
        positional: given without a flag.
        alone_with: names of the only fields that may be given beside this one.
        beside_config: may be given on the command line beside --config.
        is_output: names a file that the command writes; the other fields of metavar FILE or SOURCE name
            files that it reads.
    """
    metadata = {key: value for key, value in locals().items() if key != "default"}
    return dataclasses.field(default=default, metadata=metadata)


def parse_config(
    cls: type[Config], argv: Sequence[str], *, prog: str, description: str, example: str
) -> Config:
    """Build a command's config: from the command line, else the --config file, else the defaults.

    Args:
        cls: a dataclass whose fields are made with `setting`.
        argv: the arguments after the script's name.
        prog: the script, such as "train.py".
        description: a line for the help text.
        example: a command line for the help text.

    Raises:
        UserError: bad usage; the message names the flag and the value.
        SystemExit: with 0, after --help, --help-all or --version was printed.
    """
    config = cls(**given_settings(cls, argv, prog=prog, description=description, example=example))
    _check_outputs(config)
    return config


def given_settings(
    cls: type[Config], argv: Sequence[str], *, prog: str, description: str, example: str
) -> dict[str, Any]:
    """Return only the settings that the arguments and the --config file give, by field name.

    Arguments and errors are those of `parse_config`.
    """
    answer_information(argv, lambda full: help_lines(cls, prog, description, example, full))
    fields = _fields(cls)
    tokens = _split_arguments(cls, argv, prog)
    config_file = tokens.pop("config", None)
    tokens.pop("debug", None)
    given: dict[str, Any] = {}
    if config_file is not None:
        for name in tokens:
            if not fields[name].metadata["beside_config"]:
                flag = flag_of(fields[name])
                raise UserError(f"{flag} cannot be combined with --config; write it into that file")
        given.update(read_settings(cls, Path(config_file)))
    for name, value in tokens.items():
        if value != []:  # what argparse gives for a positional that is absent
            given[name] = _convert(cls, fields[name], value)
    _refuse_company(fields, given)
    return given


def answer_information(argv: Sequence[str], lines: Callable[[bool], Sequence[str]]) -> None:
    """Print the help text or the versions, and exit with 0, where the arguments ask for one.

    `lines` gives the help text of --help, or of --help-all if its argument is true.
    """
    asked = [token for token in argv if token in ("-h", "--help", "--help-all", "--version")]
    if not asked:
        return
    if asked[0] == "--version":
        print("\n".join(version_lines()))
    else:
        print("\n".join(lines("--help-all" in asked)))
    raise SystemExit(0)


def read_settings(cls: type, path: Path) -> dict[str, Any]:
    """Read a YAML file of settings; returns those that it holds, by field name.

    Raises:
        UserError: it cannot be read, or holds an unknown key or a bad value.
    """
    return _checked_keys(cls, read_yaml(path), str(path))


def config_from_dict(cls: type[Config], values: dict[str, Any], source: str) -> Config:
    """Rebuild a config from `config_as_dict`'s plain values, such as those in a checkpoint.

    Raises:
        UserError: an unknown key or a bad value.
    """
    return cls(**_checked_keys(cls, values, source))


def config_as_dict(config: Any) -> dict[str, Any]:
    """Return the settings as plain values (tuples become lists) that YAML, JSON and a checkpoint can hold."""
    return {field.name: as_plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def as_plain(value: Any) -> Any:
    """Return a setting as YAML, JSON and a checkpoint hold it."""
    return list(value) if isinstance(value, tuple) else value


def as_arguments(cls: type, values: Mapping[str, Any]) -> list[str]:
    """Write settings as the arguments that `given_settings` reads back as the same."""
    arguments = []
    for name, field in _fields(cls).items():
        if name not in values or values[name] is None:
            continue
        value, flag = values[name], flag_of(field)
        if isinstance(value, bool):
            arguments.append(flag if value else flag.replace("--", "--no-", 1))
            continue
        items = value if isinstance(value, tuple) else (value,)
        if _is_size(_type_of(cls, field)[0]) and len(set(items)) == 1:
            items = items[:1]
        arguments += [flag, *map(str, items)]
    return arguments


def save_args_yaml(settings: Any, path: Path | str) -> None:
    """Write a config, or plain settings by name, so that `--config PATH` repeats them.

    Raises:
        UserError: the file cannot be written.
    """
    values = dict(settings) if isinstance(settings, Mapping) else config_as_dict(settings)
    with atomic_write(path, "w") as file:
        yaml.safe_dump(values, file, sort_keys=False, allow_unicode=True, default_flow_style=None)


def flag_of(field: Field) -> str:
    """Return the flag of a field, or the name of a positional one."""
    if field.metadata["positional"]:
        return str(field.metadata["metavar"])
    return field.metadata["flag"] or "--" + field.name.replace("_", "-")


def check_settings(config: Any) -> None:
    """Check every field of a config against its limits and choices.

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


def _check_outputs(config: Any) -> None:
    """Check the files that a command writes against those that it reads; a UserError names the flag."""
    written, read = {}, {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.metadata["is_output"]:
            written[flag_of(field)] = value
        elif field.metadata["metavar"] in ("FILE", "SOURCE") and value is not None:
            read[flag_of(field)] = value if isinstance(value, tuple) else (value,)
    check_output_files(written, read)


def help_lines(cls: type, prog: str, description: str, example: str, full: bool) -> list[str]:
    """Return the help text of a command: the daily flags, or with `full` all of them under their headings."""
    fields = list(_fields(cls).values())
    positional = [field for field in fields if field.metadata["positional"]]
    lines = [f"usage: python {prog} {' '.join([*map(flag_of, positional), '[flags]'])}", "", description, ""]
    for field in fields:
        if field.metadata["group"] is None:
            lines += _help_of(cls, field)
    groups = dict.fromkeys(field.metadata["group"] for field in fields if field.metadata["group"])
    for group in sorted(groups, key="output".__eq__) if full else ():  # which comes last
        lines += ["", f"{group}:"]
        for field in fields:
            if field.metadata["group"] == group:
                lines += _help_of(cls, field)
    lines += [
        "",
        *_entry("--config FILE", "settings from a YAML file such as a run's args.yaml; flags override it"),
        *_entry("--debug", "show the traceback of an error"),
        *_entry("--version", "print version, commit, Python, packages and devices, for a bug report"),
    ]
    if not full:
        lines += _entry("--help-all", "show all flags")
    return [*lines, "", f"example: {example}"]


def _help_of(cls: type, field: Field) -> list[str]:
    flag, default, text = flag_of(field), field.default, field.metadata["help"]
    text = text() if callable(text) else text
    if _is_switch(cls, field):
        name = flag.replace("--", "--no-", 1) if default else flag
        flags = [flag, flag.replace("--", "--no-", 1)] if default is None else [name]
        return _entry(", ".join([*flags, *field.metadata["aliases"]]), text)
    shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
    note = f" (default: {shown})" if default not in (None, ()) else ""
    names = ", ".join([flag, *field.metadata["aliases"]])
    choices, usual = field.metadata["choices"], _METAVARS.get(_type_of(cls, field)[0], field.name.upper())
    metavar = field.metadata["metavar"] or (" | ".join(choices) if choices else usual)
    value = "" if field.metadata["positional"] else f" {metavar}"
    return _entry(names + value, text + note)


def _entry(name: str, text: str) -> list[str]:
    width = max(60, min(110, shutil.get_terminal_size((100, 24)).columns - 2))
    wrapped = textwrap.wrap(text, width - 30, break_long_words=False, break_on_hyphens=False)
    first = [f"  {name:<27} {wrapped[0]}"] if len(name) <= 27 else [f"  {name}", f"{'':30}{wrapped[0]}"]
    return first + [f"{'':30}{line}" for line in wrapped[1:]]


def _fields(cls: type) -> dict[str, Field]:
    return {field.name: field for field in dataclasses.fields(cls)}


def _type_of(cls: type, field: Field) -> tuple[Any, bool]:
    """Return a field's type without None, and whether it may be None."""
    hint = _type_hints(cls)[field.name]
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    (kind,) = (option for option in options if option is not type(None))
    return kind, len(options) > 1


@functools.cache
def _type_hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _is_switch(cls: type, field: Field) -> bool:
    return _type_of(cls, field)[0] is bool


def _is_size(kind: Any) -> bool:
    return kind == tuple[int, int]


def _split_arguments(cls: type, argv: Sequence[str], prog: str) -> dict[str, Any]:
    """Split the arguments into texts by field name; positional ones may stand between the flags."""
    fields = _fields(cls)
    parser = _build_parser(cls)
    _refuse_unknown_flags(fields, argv, set(parser._option_string_actions), prog)
    parsed, positional = parser.parse_known_args(list(argv))
    tokens = vars(parsed)
    if positional:
        name = next((name for name, field in fields.items() if field.metadata["positional"]), None)
        if name is None or any(token.startswith("-") for token in positional):
            parser.error(f"unrecognized arguments: {' '.join(positional)}")
        tokens[name] = [*tokens.get(name, []), *positional]
    return tokens


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message.removeprefix('argument ')}; --help shows the flags")


def _build_parser(cls: type) -> _Parser:
    """Build a parser that splits the arguments and leaves every value as text."""
    parser = _Parser(add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    parser.add_argument("--config")
    parser.add_argument("--debug", action="store_true")
    for field in _fields(cls).values():
        meta, names = field.metadata, [flag_of(field), *field.metadata["aliases"]]
        if meta["positional"]:
            parser.add_argument(field.name, nargs="*")
        elif _is_switch(cls, field):
            says_no = flag_of(field).startswith("--no-")  # its opposite needs no flag
            action = "store_true" if says_no else argparse.BooleanOptionalAction
            parser.add_argument(*names, dest=field.name, action=action)
        else:
            takes_several = typing.get_origin(_type_of(cls, field)[0]) is tuple
            nargs = "+" if takes_several else "?" if meta["bare"] is not None else None
            parser.add_argument(*names, dest=field.name, nargs=nargs, const=meta["bare"])
    return parser


def _refuse_unknown_flags(
    fields: Mapping[str, Field], argv: Sequence[str], known: set[str], prog: str
) -> None:
    for token in argv:
        if token == "--":
            return
        flag = token.partition("=")[0]
        if re.match(r"--?[^\W\d]", flag) and flag not in known:
            raise UserError(f"unknown flag {flag}; {_suggestion(fields, flag, known, prog)}")


def _suggestion(fields: Mapping[str, Field], flag: str, known: set[str], prog: str) -> str:
    name = _as_name(flag)
    field = fields.get(_field_of(name, fields) or name)
    if field is not None and field.metadata["positional"]:
        return f"it is a positional argument here: python {prog} {field.metadata['metavar']}"
    if field is not None:
        return f"here it is { {'nosave': '--no-save', 'noval': '--val none'}.get(name, flag_of(field)) }"
    if near := nearest(flag, sorted(known)):
        return f"did you mean {near}?"
    return "--help-all lists the flags (write a path that starts with - as ./-x)"


def nearest(word: str, known: Sequence[str]) -> str | None:
    """Return the known word that the given one is a likely typo of, or None."""
    bare = {name.lstrip("-"): name for name in known}  # the dashes are no likeness
    found = difflib.get_close_matches(word.lstrip("-"), bare, n=1, cutoff=0.75)
    return bare[found[0]] if found else None


def _as_name(flag: str) -> str:
    """Return the name of the field that a flag, or a key of a file, would belong to."""
    return flag.lstrip("-").replace("-", "_").lower()


def _field_of(foreign_name: str, fields: Mapping[str, Field]) -> str | None:
    """Return our name for a flag or key of another repository."""
    return next(
        (f for f, names in _FOREIGN_NAMES.items() if f in fields and foreign_name in names.split()), None
    )


def _checked_keys(cls: type, values: dict[Any, Any], source: str) -> dict[str, Any]:
    fields, checked = _fields(cls), {}
    for key, value in values.items():
        name = _as_name(str(key))
        if name not in fields:
            near = _field_of(name, fields) or nearest(name, list(fields))
            raise UserError(
                f"{source}: unknown key {key!r}; " + (f"here it is {near!r}" if near else "see --help-all")
            )
        try:
            checked[name] = _convert(cls, fields[name], value)
        except UserError as error:
            raise UserError(f"{source}: {error}") from None
    return checked


def _refuse_company(fields: dict[str, Field], given: dict[str, Any]) -> None:
    """Refuse flags beside one that takes everything else from elsewhere, such as --resume."""
    for name in given:
        allowed = fields[name].metadata["alone_with"]
        others = [flag_of(fields[other]) for other in given if other != name and other not in (allowed or ())]
        if allowed is not None and given[name] is not None and others:
            free = ", ".join(flag_of(fields[other]) for other in allowed)
            raise UserError(
                f"{flag_of(fields[name])} cannot be combined with {', '.join(others)}: the rest comes from "
                f"the checkpoint; only {free} may be given"
            )


def _convert(cls: type, field: Field, value: Any) -> Any:
    """Turn text of a command line, or a plain value of a YAML file, into the field's type."""
    flag, (kind, is_optional) = flag_of(field), _type_of(cls, field)
    if value is None:
        if is_optional:
            return None
        raise UserError(f"{flag}: needs a value")
    if typing.get_origin(kind) is tuple:
        items = list(value) if isinstance(value, (list, tuple)) else [value]
        return _to_size(flag, items) if _is_size(kind) else tuple(_to_str(flag, item) for item in items)
    if isinstance(value, (list, tuple, dict)):
        raise UserError(f"{flag} {value}: takes a single value")
    if field.metadata["bare"] is not None and kind is int and not str(value).isdecimal():
        raise UserError(f"{flag} {value}: needs a whole number or none; put other arguments before {flag}")
    return _CONVERTERS[kind](flag, value)


def _to_size(flag: str, items: Sequence[Any]) -> tuple[int, ...]:
    """Read (height, width); one number is both."""
    parts = [part for item in items for part in re.split("[x,]", str(item))]
    numbers = tuple(_to_int(flag, part) for part in parts)
    if len(numbers) not in (1, 2):
        raise UserError(f"{flag} {' '.join(parts)}: takes one number or height and width")
    return numbers * 2 if len(numbers) == 1 else numbers


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
        with suppress(ValueError, OverflowError):  # of an int with 310 digits
            number = float(value)
            if math.isfinite(number):
                return number
    raise UserError(f"{flag} {value}: needs a finite number")


def _to_bool(flag: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise UserError(f"{flag} {value}: needs true or false")
    return value


_CONVERTERS: dict[type, Callable[[str, Any], Any]]
_CONVERTERS = {str: _to_str, int: _to_int, float: _to_float, bool: _to_bool}


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
