"""Bounded reading of text, JSON and YAML, atomic file writing, and creation of run folders."""

from __future__ import annotations

import csv
import errno
import json
import os
import re
import secrets
import shutil
import stat
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import yaml

from utils.cli.errors import UserError

MAX_TEXT_BYTES = 16_000_000
_LONGEST_NAME = 255  # bytes, of most file systems
_DESCRIBED = (".param", ".weights")  # models with a .json of the same stem beside them
# How the files begin, without blanks, that these flags of predict.py, evaluate.py and data.py check write.
_REPORTS = {
    "--json": rb'\{"(path":"|images":\d|data":")',
    "--csv": rb"path,width,height,|level,kind,splits,",
    "--coco": rb'\[(\]|\{"image_id":)',
}


def read_bytes(path: Path | str, limit: int = MAX_TEXT_BYTES, missing: str = "no such file") -> bytes:
    """Read a regular file of at most `limit` bytes.

    Raises:
        UserError: `missing` for a file that does not exist, or why it cannot be read.
    """
    path = Path(path)
    try:
        if not path.is_file():  # reading from a named pipe could block forever
            raise UserError(f"{path}: {'not a regular file' if path.exists() else missing}")
        with open(path, "rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise UserError(f"{path}: cannot read: {error.strerror}") from None
    if len(data) > limit:
        raise UserError(f"{path}: more than {limit / 1e6:g} MB")
    return data


def read_text(path: Path | str, limit: int = MAX_TEXT_BYTES, missing: str = "no such file") -> str:
    """Read a UTF-8 text file, with or without a byte order mark; raises a UserError as `read_bytes`."""
    try:
        text = read_bytes(path, limit, missing).decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise UserError(f"{path}: not UTF-8 text; save it as UTF-8")
    return text


def read_csv(path: Path) -> list[dict[str, str]]:
    """Read a CSV file with a heading: a dict for each row; raises a UserError as `read_text`."""
    return list(csv.DictReader(read_text(path).splitlines()))


def read_json(path: Path, limit: int) -> Any:
    """Read a JSON file; raises a UserError as `read_text`, and for text that is not JSON."""
    text = read_text(path, limit)
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except RecursionError:
        raise UserError(f"{path}: JSON nested too deep") from None
    except ValueError as error:  # also of a number with thousands of digits
        raise UserError(f"{path}: not JSON: {str(error)[:100]}") from None


def _unique(pairs: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    """Return a mapping in which no value replaces another one; a repeated key is a ValueError."""
    values: dict[Any, Any] = {}
    for key, value in pairs:
        if key in values:
            raise ValueError(f"the key {str(key)[:60]!r} is given twice")
        values[key] = value
    return values


def plain_float(text: str) -> float:
    """Return the number in a text; unlike float refuse 1_000 and digits of other scripts: ValueError."""
    if "_" in text or not text.strip().isascii():
        raise ValueError(f"{text[:40]!r} is not a number")
    return float(text)


class _PlainLoader(yaml.SafeLoader):
    """Loads plain values without repeated keys, and without aliases: nested ones expand exponentially."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("an alias (*name) is refused")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        _unique((key.value, None) for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping safely, {} if empty; raises a UserError as `read_text`, and for anything else."""
    try:
        values = yaml.load(read_text(path, 1_000_000), _PlainLoader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UserError(f"{path}: not a plain YAML file: {' '.join(str(error).split())[:150]}") from None
    if not isinstance(values, dict | None):
        raise UserError(f"{path}: not a YAML file of lines `name: value`, such as `epochs: 20`")
    return values or {}


def as_utf8(path: Path | str) -> str:
    """Return a path as text that any file can hold: bytes that are not UTF-8 become escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


@contextmanager
def atomic_write(path: Path | str, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a file that appears under its name only if the block ends without an exception.

    The bytes go to a new file in the same folder, `<path>.tmp` if nothing has that name, are flushed and
    synced to disk, then renamed to `path`, whose permissions and owner it takes; after a failure the old file
    is unchanged and the temporary one removed. Links are followed; a pipe or a device is written directly.
    `mode` is "wb" for bytes or "w" for UTF-8 text; the folder must exist.

    Raises:
        UserError: the file cannot be written (exit code 1); names the file and the reason.
    """
    path = Path(path)
    if path.exists() and not (path.is_file() or path.is_dir()):
        with _open(path, mode) as file:  # a pipe or a device is never replaced or removed
            yield file
        return
    target = Path(os.path.realpath(path))
    try:
        if target.is_file() and not os.access(target, os.W_OK):  # renaming asks the folder alone
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        file = _open_temporary(target, mode.replace("w", "x"))
    except OSError as error:
        raise UserError(f"{path}: cannot write: {error.strerror}", exit_code=1) from error
    temporary = Path(file.name)
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        _copy_permissions(target, temporary)
        os.replace(temporary, target)
    except BrokenPipeError:
        _remove(temporary)
        raise
    except OSError as error:
        _remove(temporary)
        if error.filename not in (None, os.fspath(temporary)):
            raise  # the block's own error with another file
        raise UserError(f"{path}: cannot write: {error.strerror or error}", exit_code=1) from error
    except BaseException:
        _remove(temporary)
        raise


def check_output_files(written: Mapping[str, str | None], read: Mapping[str, Iterable[str]]) -> None:
    """Check before any work the files that a command writes; both arguments are paths by flag.

    A file that exists is replaced only if it is empty, or begins as an earlier report of the flag.

    Raises:
        UserError: one is -, a folder, lies in none, cannot be written, is also read or named by two flags, or
            is no report.
    """
    owners: dict[str, str] = {}  # path without links -> flag
    for flag, paths in read.items():
        for file in map(Path, filter(os.path.isfile, paths)):
            described = [file.with_suffix(".json")] if file.suffix.lower() in _DESCRIBED else []
            owners |= {os.path.realpath(one): flag for one in (file, *described)}
    for flag, path in written.items():
        if path is None:
            continue
        if path == "-" or Path(path).is_dir():
            raise UserError(f"{flag} {path}: is {'no file' if path == '-' else 'a folder'}; name a file")
        if not Path(path).parent.is_dir():
            raise UserError(f"{flag} {path}: its folder does not exist")
        real = os.path.realpath(path)  # Path.resolve fails on a link to itself
        if not _can_write(real):
            raise UserError(f"{flag} {path}: cannot write: Permission denied")
        if real in owners:
            raise UserError(f"{flag} {path}: is also the file of {owners[real]}; name another")
        owners[real] = flag
        if os.path.isfile(real):
            with open(real, "rb") as old:
                begin = b"".join(old.read(200).split())
            if begin and not re.match(_REPORTS[flag], begin):
                raise UserError(f"{flag} {path}: exists and is no report of {flag}; name another")


def new_run_folder(project: Path | str, name: str = "exp", exist_ok: bool = False) -> Path:
    """Create the run folder PROJECT/NAME and check that files can be written into it.

    If it exists, it is used with `exist_ok`, else the name is NAME2, NAME3 ...

    Raises:
        UserError: the name is not a plain folder name, or the folder cannot be created or written to.
    """
    if name in ("", ".", "..") or "/" in name or os.sep in name:
        raise UserError(f"--name {name!r}: not a plain folder name; the folder above it is --project")
    folder = Path(project) / name
    try:
        if exist_ok:
            folder.mkdir(parents=True, exist_ok=True)
        else:
            folder = _make_numbered(folder)
        probe = folder / ".probe.tmp"
        try:
            probe.write_bytes(b"probe")
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(
            f"{folder}: cannot write here: {reason}; choose another folder with --project"
        ) from error
    return folder


def check_free_space(folder: Path, needed: int, flag: str | None) -> None:
    """Check that so many bytes are free on the disk of a folder, which need not exist yet.

    Raises:
        UserError: they are not; names the flag of the folder, if it has one. A disk that does not say passes.
    """
    existing = next(filter(os.path.exists, (folder.absolute(), *folder.absolute().parents)))
    with suppress(OSError):
        disk = shutil.disk_usage(existing)
        if disk.total and disk.free < needed:
            sizes = f"{disk.free / 1e6:,.0f} MB are free, {needed / 1e6:,.0f} MB are needed"
            advice = f"free some or choose another {flag}" if flag else "free some"
            raise UserError(f"{folder}: {sizes}; {advice}", exit_code=1)


@contextmanager
def removed_if_empty(folder: Path) -> Iterator[None]:
    """Remove a folder if the block fails and leaves it empty."""
    try:
        yield
    except BaseException:
        with suppress(OSError):
            folder.rmdir()
        raise


def _open(path: Path, mode: str) -> IO[Any]:
    return open(path, mode) if "b" in mode else open(path, mode, encoding="utf-8", newline="\n")


def _open_temporary(target: Path, mode: str) -> IO[Any]:
    """Open a new file beside another: a user's file or another run may have the name `<target>.tmp`."""
    usual = target.with_name(f"{target.name}.tmp")
    if len(os.fsencode(usual.name)) <= _LONGEST_NAME:
        with suppress(FileExistsError):
            return _open(usual, mode)
    return _open(target.with_name(f"{target.name[:40]}.{secrets.token_hex(4)}.tmp"), mode)


def _copy_permissions(old: Path, new: Path) -> None:
    """Give a file the mode of the one that it replaces, and the owner where that is allowed."""
    with suppress(OSError):  # no old one, or a disk without permissions
        state = old.stat()
        os.chmod(new, stat.S_IMODE(state.st_mode))
        os.chown(new, -1, state.st_gid)  # allowed to a member of the group
        os.chown(new, state.st_uid, -1)


def _can_write(path: str) -> bool:
    """Return whether `atomic_write` may write a file, for which it needs the folder too; or a device."""
    is_device = os.path.exists(path) and not os.path.isfile(path)
    places = [path] if is_device else [path, os.path.dirname(path)]
    return all(os.access(place, os.W_OK) for place in places if os.path.exists(place))


def _make_numbered(folder: Path) -> Path:
    folder.parent.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        candidate = folder if number == 1 else folder.with_name(f"{folder.name}{number}")
        try:
            candidate.mkdir()  # atomic: two runs started at once get two folders
        except FileExistsError:
            number += 1
        else:
            return candidate


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


def free_name(stem: str, taken: set[str], suffix: str = "") -> str:
    """Return STEM with the suffix, numbered where it is taken, and add it to the taken ones."""
    name, number = f"{stem}{suffix}", 1
    while name.casefold() in taken:  # some file systems take A.jpg and a.jpg for one
        number += 1
        name = f"{stem}_{number}{suffix}"
    taken.add(name.casefold())
    return name


def on_disk(path: Path) -> Path:
    """Return the path of a file as it is on disk; as given if it is not there.

    Its names may be in NFC or NFD (macOS), and the suffix in another case.
    """
    if os.path.lexists(path) or path == path.parent:
        return path
    folder = on_disk(path.parent)
    if not folder.is_dir():
        return path
    return folder / _names_in(folder, folder.stat().st_mtime_ns).get(_plain_name(path.name), path.name)


@lru_cache(maxsize=16)
def _names_in(folder: Path, _mtime: int) -> dict[str, str]:
    with suppress(OSError):
        return {_plain_name(name): name for name in sorted(os.listdir(folder))}
    return {}


def _plain_name(name: str) -> str:
    stem, suffix = os.path.splitext(nfc(name))
    return stem + suffix.lower()


def nfc(text: str) -> str:
    """Return text in Unicode NFC: macOS decomposes the letters of file names, most programs do not."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)
