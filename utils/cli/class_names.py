"""Class names: reading, renaming and matching lists of them."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from utils.cli.console import warn
from utils.cli.errors import UserError
from utils.cli.files import nfc, read_text

MODEL_DATA = Path(__file__).resolve().parents[2] / "model_data"
_MAX_CLASSES = 10_000

# COCO's own spelling -> Darknet's, which is VOC's where VOC has the class.
_ALIASES = {
    "airplane": "aeroplane",
    "motorcycle": "motorbike",
    "couch": "sofa",
    "potted plant": "pottedplant",
    "dining table": "diningtable",
    "tv": "tvmonitor",
}


def normalize_name(text: str) -> str:
    """Return a class name as it is compared and stored: on one line, with single blanks, in Unicode NFC.

    macOS writes "é" as two characters (NFD), which look like the one of NFC.
    """
    return nfc(" ".join(text.split()))


def canonical_name(name: str) -> str:
    """Return the common name of two spellings of one class."""
    return _ALIASES.get(name, name)


def match_class_names(sources: Sequence[str], wanted: Sequence[str]) -> list[int | None]:
    """Find for each wanted class its index among the sources, by name, else through the aliases, or None."""
    sources, wanted = [*map(normalize_name, sources)], [*map(normalize_name, wanted)]
    exact = {name: index for index, name in enumerate(sources)}
    alias = {canonical_name(name): index for index, name in enumerate(sources)}
    return [exact.get(name, alias.get(canonical_name(name))) for name in wanted]


def choose_class_names(
    file: Path | str, own: Sequence[str] | None, given: Sequence[str] | None
) -> tuple[str, ...] | None:
    """Return the class names of a weights file: those given, else its own, else None.

    Raises:
        UserError: the given names are its own in another order, which would swap classes.
    """
    if given is None or own is None or tuple(given) == tuple(own) or len(given) != len(own):
        return tuple(given or own or ()) or None
    if set(given) == set(own):
        raise UserError(
            f"{file}: its classes have another order than --classes: {', '.join(own)}; remove --classes"
        )
    changed = [f"{old} is now {new}" for old, new in zip(own, given, strict=True) if old != new]
    warn(f"{file}: classes renamed by --classes: {', '.join(changed)}")
    return tuple(given)


def parse_renames(pairs: Sequence[str]) -> dict[str, str]:
    """Parse the values of --rename, such as ("Cat=cat", "kitten=cat").

    Raises:
        UserError: not of the form OLD=NEW, two new names for one, or a new name that is itself renamed.
    """
    renames: dict[str, str] = {}
    for pair in pairs:
        old, equals, new = map(normalize_name, pair.partition("="))
        if not (old and equals and new):
            raise UserError(f"--rename {shlex.quote(pair)}: write OLD=NEW, such as Cat=cat")
        if renames.get(old, new) != new:
            raise UserError(f"--rename {shlex.quote(pair)}: {old} is already renamed to {renames[old]}")
        renames[old] = new
    for old, new in renames.items():
        if (end := _last_name(renames, new)) != new:
            pair, other = (shlex.quote(f"{old}={name}") for name in (new, end or f"{new}_2"))
            advice = f"write {other}" if end else f"a swap needs another name, such as {other}"
            raise UserError(f"--rename {pair}: {new} is itself renamed; {advice}")
    return renames


def _last_name(renames: Mapping[str, str], name: str) -> str | None:
    """Return the name at the end of a chain of renames; None if it leads back."""
    passed = [name]
    while renames.get(passed[-1], passed[-1]) != passed[-1]:
        if renames[passed[-1]] in passed:
            return None
        passed.append(renames[passed[-1]])
    return passed[-1]


def read_class_names(path: Path | str) -> tuple[str, ...]:
    """Read a list of class names: UTF-8, one per line; blank lines and surrounding whitespace are ignored.

    Raises:
        UserError: the file is missing, not text, empty, or too long, or names a class twice.
    """
    text = read_text(path)
    names = tuple(normalize_name(line) for line in text.splitlines() if line.strip())
    if not names:
        raise UserError(f"{path}: no class names in it; write one name per line")
    if len(names) > _MAX_CLASSES:
        raise UserError(f"{path}: {len(names)} class names; at most {_MAX_CLASSES}")
    doubled = sorted(name for name, count in Counter(names).items() if count > 1)
    if doubled:
        raise UserError(f"{path}: class named twice: {', '.join(doubled[:10])}")
    return names
