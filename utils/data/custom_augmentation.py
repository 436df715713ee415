"""Transforms that --augment names: a YAML or JSON file of albumentations, or a function of the user's code.

A file is data: it names transforms of albumentations and their arguments, and nothing in it is executed. Code
is imported only when the caller names it.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import albumentations as A

from utils.cli.console import warn
from utils.cli.errors import UserError
from utils.cli.files import read_json, read_yaml
from utils.cli.own_code import import_source
from utils.cli.shared_config import is_pipeline_file

Transform: TypeAlias = A.BasicTransform | A.BaseCompose

_MAX_BYTES = 1_000_000
_MAX_DEPTH = 10  # of transforms in transforms
_MAX_TRANSFORMS = 100  # each counted as often as an image may pass it
_MAX_NUMBER = 20_000  # of any argument: a side, a kernel or a count beyond it would take gigabytes or hours
_ABSTRACT = (A.BasicTransform, A.ImageOnlyTransform, A.DualTransform, A.Transform3D, A.BaseCompose)
_NEEDS_CODE = (A.Lambda, A.ReplayCompose)
# Arguments that albumentations checks in transforms, not in compositions: what they must be.
_CHECKS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "p": ("from 0 to 1", lambda p: isinstance(p, (int, float)) and 0 <= p <= 1),
    "n": (f"a whole number from 1 to {_MAX_TRANSFORMS}", lambda n: _is_whole(n, 1, _MAX_TRANSFORMS)),
    "replace": ("true or false", lambda replace: isinstance(replace, bool)),
    "channels": (
        "a list of 1 to 3 numbers from 0 to 2",
        lambda channels: (
            isinstance(channels, list)
            and 1 <= len(channels) <= 3
            and all(_is_whole(each, 0, 2) for each in channels)
        ),
    ),
}
_OURS = ("bbox_params", "keypoint_params", "additional_targets")  # arguments of Compose that we set ourselves


def load_transforms(name: str) -> list[Transform]:
    """Load the transforms of a .yaml or .json, of 'path/to/file.py:function' or 'package.module:function'.

    Raises:
        UserError: they cannot be loaded, or are no transforms; one line.
    """
    try:
        return _read_file(Path(name)) if is_pipeline_file(name) else _call_function(name)
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # the user's own code may fail in any way
        reason = " ".join(str(error).split())
        raise UserError(f"--augment {name}: {type(error).__name__}: {reason[:300]}") from error


def hash_transforms(transforms: Sequence[Transform]) -> str:
    """Return a hash of names and arguments; the code of the user's own transforms is not part of it."""
    described = [_describe(each) for each in transforms]
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def _describe(value: Any) -> Any:
    """Return what JSON can hold, without the address of any object."""
    if isinstance(value, A.BaseCompose):
        parts = [_describe(each) for each in value.transforms]
        chosen = [
            _describe(getattr(value, key)) for key in ("replace", "channels") if getattr(value, key, None)
        ]
        return [type(value).__name__, value.p, getattr(value, "n", None), parts, *chosen]
    if isinstance(value, A.BasicTransform):
        return [type(value).__name__, value.p, _describe(value.get_transform_init_args())]
    if isinstance(value, dict):
        return {str(key): _describe(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_describe(item) for item in value]
    return value if isinstance(value, (str, int, float, type(None))) else type(value).__name__


def _read_file(path: Path) -> list[Transform]:
    content = read_json(path, _MAX_BYTES) if path.suffix.lower() == ".json" else read_yaml(path)
    if not isinstance(content, dict) or not isinstance(content.get("transform"), dict):
        raise UserError(f"{path}: no albumentations pipeline; write one with A.save(A.Compose([...]), FILE)")
    pipeline = content["transform"]
    if unused := [key for key in _OURS if pipeline.get(key)]:
        warn(f"{path}: {', '.join(unused)} not used; boxes are handled as with --augment default")
    made = _build(path, pipeline, 0)
    if (count := _count(made)) > _MAX_TRANSFORMS:
        raise UserError(
            f"{path}: has {count} transforms, counted with n of SomeOf; at most {_MAX_TRANSFORMS}"
        )
    return _unpack(made)


def _count(transform: Transform) -> int:
    """Count the transforms in a transform, each as often as an image may pass it."""
    if isinstance(transform, A.BasicTransform):
        return 1
    counts = [_count(part) for part in transform.transforms]
    repeats = transform.n if isinstance(transform, A.SomeOf) and transform.replace else 1
    return max(sum(counts), repeats * max(counts, default=0))


def _build(path: Path, node: Any, depth: int) -> Transform:
    """Build a transform of albumentations, and those in it, from its name and arguments."""
    if depth > _MAX_DEPTH:
        raise UserError(f"{path}: more than {_MAX_DEPTH} transforms inside each other")
    name = node.get("__class_fullname__") if isinstance(node, dict) else None
    # Only what `import albumentations` offers: no import by name, no class of ours or of the user's code.
    module, _, short = str(name).rpartition(".")
    kind = getattr(A, short, None) if module.partition(".")[0] in ("", "albumentations") else None
    is_transform = isinstance(kind, type) and issubclass(kind, (A.BasicTransform, A.BaseCompose))
    if kind is None or not is_transform or kind in _ABSTRACT:
        raise UserError(f"{path}: {str(name)[:80]!r} is no transform of albumentations {A.__version__}")
    if kind in _NEEDS_CODE:
        raise UserError(
            f"{path}: {short} needs code; name a function instead: --augment path/to/file.py:function"
        )
    unused = ("__class_fullname__", *(_OURS if kind is A.Compose else ()))
    arguments = {key: value for key, value in node.items() if key not in unused}
    sizes = [value for key, value in arguments.items() if key not in ("transforms", "seed")]
    if too_large := [number for number in _numbers(sizes) if not abs(number) <= _MAX_NUMBER]:
        raise UserError(f"{path}: {short} has {str(too_large[0])[:40]}; numbers are at most {_MAX_NUMBER}")
    if issubclass(kind, A.BaseCompose):
        for key, (range_, fits) in _CHECKS.items():
            if key in arguments and not fits(value := arguments[key]):
                raise UserError(f"{path}: {short}: {key} must be {range_}, got {str(value)[:40]!r}")
        parts = arguments.get("transforms")
        least = 0 if kind is A.Compose else 1
        if not isinstance(parts, list) or not least <= len(parts) <= _MAX_TRANSFORMS:
            raise UserError(f"{path}: {short} needs a list of {least} to {_MAX_TRANSFORMS} transforms")
        arguments["transforms"] = parts = [_build(path, part, depth + 1) for part in parts]
        if kind is A.OneOf and not any(part.p for part in parts):
            raise UserError(f"{path}: OneOf: p of one of its transforms must be above 0")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=r"Argument\(s\)")  # one is unknown
            return kind(**arguments)
    except Exception as error:
        raise UserError(f"{path}: {short}: {' '.join(str(error).split())[:300]}") from error


def _is_whole(value: Any, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _numbers(item)
    elif isinstance(value, (int, float)):
        yield value


def _call_function(name: str) -> list[Transform]:
    source, _, function = name.rpartition(":")
    make = getattr(import_source(source), function, None)
    if not callable(make):
        raise UserError(f"--augment {name}: {source} has no function {function!r}")
    return _unpack(make())


def _unpack(made: Any) -> list[Transform]:
    """Return the transforms of a list, or of a Compose that always applies them."""
    if isinstance(made, A.Compose) and made.p == 1:
        made = made.transforms
    made = [made] if isinstance(made, (A.BasicTransform, A.BaseCompose)) else made
    if not isinstance(made, (list, tuple)):
        raise TypeError(f"must return a list of albumentations transforms, not {type(made).__name__}")
    for each in made:
        if not isinstance(each, (A.BasicTransform, A.BaseCompose)):
            raise TypeError(f"must return a list of albumentations transforms; it has {type(each).__name__}")
    return list(made)
