"""Annotation cache: what reading each file of a data set gave, kept until the file changes.

The cache is in runs/cache, never among the user's data. It does not depend on class names or on the purpose
of a split, so all commands share it. A file counts as unchanged while its size, mtime and ctime are the same.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from utils.cli.console import progress
from utils.cli.errors import UserError
from utils.cli.files import atomic_write
from utils.data.samples import Sample
from utils.data.voc_xml import VocAnnotation, VocObject, read_annotation
from utils.vision.image_reader import ImageHeader, hash_image, read_header, verify_image

CACHE = Path("runs") / "cache"
_FORMAT = 5  # version of the cache files; others are ignored
_PROGRESS_FROM = 500  # images


@dataclass(frozen=True)
class SampleContent:
    """Content of the files of one sample.

    Attributes:
        annotation: without objects for an image without XML; None if it cannot be read.
        header: None if the image cannot be read.
        xml_error: why there is no annotation, starting with the file; else empty.
        image_error: the same for the image.
        image_hash: 64-bit difference hash, if requested and the image can be read.
    """

    annotation: VocAnnotation | None
    header: ImageHeader | None
    xml_error: str = ""
    image_error: str = ""
    image_hash: int | None = None


def read_samples(
    samples: Sequence[Sample], *, decode: bool = False, hashes: bool = False
) -> list[SampleContent]:
    """Read the annotation and image header of every sample in threads, but not those with a `problem`.

    Args:
        samples: the images.
        decode: read every pixel too, which finds damage in the middle of a file.
        hashes: compute the difference hash too.
    """
    with AnnotationCache(samples) as cache, ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        contents: Iterable[SampleContent] = pool.map(
            lambda sample: _read_sample(sample, cache, decode, hashes), samples
        )
        if decode or len(samples) >= _PROGRESS_FROM:
            contents = progress(contents, "check", total=len(samples))
        return list(contents)


class AnnotationCache:
    """What reading each file gave, while the file is unchanged; used in a `with` block.

    There is one cache file per data folder. An unreadable one is ignored; if it cannot be written, nothing is
    kept.
    """

    def __init__(self, samples: Sequence[Sample]) -> None:
        paths = [path for sample in samples for path in (sample.image_path, sample.xml_path) if path]
        self._folders: dict[Path, dict[str, dict[str, Any]]] = {path.parent: {} for path in paths}
        self._changed: set[Path] = set()

    def __enter__(self) -> AnnotationCache:
        for folder, files in self._folders.items():
            with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
                stored = json.loads(_cache_file(folder).read_bytes())
                if stored["format"] == _FORMAT:
                    files.update({name: entry for name, entry in stored["files"].items() if entry["stamp"]})
        return self

    def __exit__(self, *_: object) -> None:
        for folder in self._changed:
            path = _cache_file(folder)
            own = path.with_suffix(f".{os.getpid()}")  # several processes may write at once
            with suppress(OSError, UserError):
                CACHE.mkdir(parents=True, exist_ok=True)
                with atomic_write(own, "w") as file:
                    file.write(json.dumps({"format": _FORMAT, "files": self._folders[folder]}))
                os.replace(own, path)

    def has(self, path: Path, key: str) -> bool:
        """Tell whether `read` would find its answer in the cache."""
        with suppress(OSError):
            return key in self._entry(path)
        return False

    def read(self, path: Path, key: str, reader: Callable[[Path], Any]) -> Any:
        """Return reader(path), a JSON value, from the cache if the file is unchanged; `key` names the reader.

        Raises:
            UserError: the reader raised it, now or before.
        """
        try:
            entry = self._entry(path)
        except OSError:
            return reader(path)  # its message names the reason
        if key not in entry:
            try:
                entry[key] = {"value": reader(path)}
            except UserError as error:
                if isinstance(error.__context__, OSError) and error.__context__.errno:
                    raise  # permissions or a disk error: not about the content, so not cached
                entry[key] = {"error": str(error)}
            self._folders[path.parent][path.name] = entry
            self._changed.add(path.parent)
        if "error" in entry[key]:
            raise UserError(entry[key]["error"])
        return entry[key]["value"]

    def _entry(self, path: Path) -> dict[str, Any]:
        """Return the entry of a file, an empty one if the file has changed."""
        state = os.stat(path)
        stamp = [state.st_size, state.st_mtime_ns, state.st_ctime_ns]
        entry = self._folders[path.parent].get(path.name)
        return entry if entry is not None and entry["stamp"] == stamp else {"stamp": stamp}


def _cache_file(folder: Path) -> Path:
    """Return the cache file of a folder. Error messages have the folder as given, so that is in the key."""
    name = f"{Path.cwd()}\0{folder}"
    return CACHE / f"{hashlib.sha256(name.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}.json"


def _read_sample(sample: Sample, cache: AnnotationCache, decode: bool, hashes: bool) -> SampleContent:
    if sample.problem:
        return SampleContent(None, None)
    annotation: VocAnnotation | None = VocAnnotation(None, ())
    header = image_hash = None
    xml_error = image_error = ""
    try:
        if sample.xml_path is not None:
            stored = cache.read(sample.xml_path, "annotation", lambda path: astuple(read_annotation(path)))
            annotation = _from_json(stored)
    except UserError as error:
        annotation, xml_error = None, str(error)
    try:
        sides = cache.read(sample.image_path, "header", lambda path: astuple(read_header(path)))
        if decode or cache.has(sample.image_path, "decoded"):  # damage found once is reported every time
            cache.read(sample.image_path, "decoded", verify_image)
        image_hash = cache.read(sample.image_path, "hash", hash_image) if hashes else None
        header = ImageHeader(*sides)
    except UserError as error:
        image_error = str(error)
    return SampleContent(annotation, header, xml_error, image_error, image_hash)


def _from_json(stored: Sequence[Any]) -> VocAnnotation:
    """Return the annotation whose `astuple` this was; JSON turns tuples into lists."""
    size, objects, errors, counted = stored
    return VocAnnotation(
        None if size is None else (size[0], size[1]),
        tuple(
            VocObject(name, (box[0], box[1], box[2], box[3]), difficult, score)
            for name, box, difficult, score in objects
        ),
        tuple((number, name, reason) for number, name, reason in errors),
        counted,
    )
