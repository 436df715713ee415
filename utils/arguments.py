"""What stands on a command line: texts by field name, and the words of other repositories."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from utils.errors import UserError
from utils.settings import SWITCHES, flag_of

# What users of other repositories type -> our field.
HABITS = {
    "source": "sources",
    "input": "sources",
    "conf_thres": "conf",
    "conf_threshold": "conf",
    "confidence": "conf",
    "iou": "nms_iou",
    "iou_thres": "nms_iou",
    "iou_threshold": "nms_iou",
    "nms_thres": "nms_iou",
    "max_detections": "max_det",
    "batch": "batch_size",
    "include": "format",
    "fp16": "half",
    "bs": "batch_size",
    "img": "imgsz",
    "img_size": "imgsz",
    "image_size": "imgsz",
    "input_size": "imgsz",
    "input_shape": "imgsz",
    "size": "imgsz",
    "data_dir": "data",
    "data_path": "data",
    "dataset": "data",
    "voc_path": "data",
    "model": "weights",
    "model_path": "weights",
    "checkpoint": "weights",
    "pretrained": "weights",
    "epoch": "epochs",
    "max_epochs": "epochs",
    "num_epochs": "epochs",
    "freeze": "freeze_epochs",
    "freeze_epoch": "freeze_epochs",
    "lr0": "lr",
    "init_lr": "lr",
    "learning_rate": "lr",
    "num_workers": "workers",
    "gpu": "device",
    "gpus": "device",
    "names": "classes",
    "classes_path": "classes",
    "label_smooth": "label_smoothing",
    "out": "project",
    "output": "project",
    "output_dir": "project",
    "save_dir": "project",
    "nosave": "save",
    "save_txt": "txt",
    "save_conf": "txt_scores",
    "save_crop": "crop",
    "save_xml": "xml",
    "view_img": "view",
    "show": "view",
    "noval": "val",
    "attention": "phi",
}


def split_arguments(
    fields: Mapping[str, dataclasses.Field[Any]], argv: Sequence[str], prog: str
) -> dict[str, Any]:
    """Split the arguments into texts by field name; what has no flag may stand between the flags too.

    Args:
        fields: the settings by name, made with `setting`.
        argv: the arguments after the script's name.
        prog: the script, for the message.

    Raises:
        UserError: a flag that there is not, with the nearest that there is, or one without its value.
    """
    _refuse_unknown_flags(fields, argv, prog)
    parser = _build_parser(fields)
    parsed, alone = parser.parse_known_args(list(argv))
    tokens = vars(parsed)
    if alone:
        positional = next((name for name, field in fields.items() if field.metadata["positional"]), None)
        if positional is None or any(token.startswith("-") for token in alone):
            parser.error(f"unrecognized arguments: {' '.join(alone)}")
        tokens[positional] = [*tokens.get(positional, []), *alone]
    return tokens


def as_name(flag: str) -> str:
    """Return the name of the field that a flag, or a key of a file, would belong to."""
    return flag.lstrip("-").replace("-", "_").lower()


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message.removeprefix('argument ')}; --help shows the flags")


def _build_parser(fields: Mapping[str, dataclasses.Field[Any]]) -> _Parser:
    """Build a parser that splits the arguments and leaves every value as text."""
    parser = _Parser(add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    parser.add_argument("--config")
    parser.add_argument("--debug", action="store_true")
    for field in fields.values():
        meta = field.metadata
        if meta["positional"]:
            parser.add_argument(field.name, nargs="*")
        elif field.type in SWITCHES:
            says_no = flag_of(field).startswith("--no-")  # its opposite needs no flag
            action = "store_true" if says_no else argparse.BooleanOptionalAction
            parser.add_argument(flag_of(field), dest=field.name, action=action)
        else:
            names = [flag_of(field), *meta["aliases"]]
            parser.add_argument(*names, dest=field.name, nargs=meta["nargs"], const=meta["bare"])
    return parser


def _refuse_unknown_flags(
    fields: Mapping[str, dataclasses.Field[Any]], argv: Sequence[str], prog: str
) -> None:
    known = set(_build_parser(fields)._option_string_actions)
    for token in argv:
        if token == "--":
            return
        flag = token.partition("=")[0]
        if re.match(r"--?[^\W\d]", flag) and flag not in known:
            raise UserError(f"unknown flag {flag}; {_suggestion(fields, flag, known, prog)}")


def _suggestion(fields: Mapping[str, dataclasses.Field[Any]], flag: str, known: set[str], prog: str) -> str:
    field = fields.get(HABITS.get(as_name(flag), as_name(flag)))
    if field is not None and field.metadata["positional"]:
        return f"here it stands without a flag: python {prog} {field.metadata['metavar']}"
    if field is not None:
        habit = {"nosave": "--no-save", "noval": "--val none"}.get(as_name(flag), flag_of(field))
        return f"here it is {habit}"
    near = difflib.get_close_matches(flag, sorted(known), n=1)
    if near:
        return f"did you mean {near[0]}?"
    return "--help-all lists the flags (a path that starts with - is written ./-x)"
