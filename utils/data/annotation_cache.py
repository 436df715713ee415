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
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from utils.cli.console import progress
from utils.cli.errors import UserError
from utils.cli.files import atomic_write
from utils.data.samples import Sample
from utils.data.voc_xml import VocAnnotation, VocObject, read_annotation
from utils.vision.image_reader import ImageHeader, hash_image, read_header, verify_image

CACHE = Path("runs") / "cache"
_FORMAT = 8  # version of the cache files; others are ignored
_PROGRESS_FROM = 500  # images
_CHUNK = 16  # images that a thread takes at once


@dataclass(frozen=True)
class SampleContent:
    """Content of the files of one sample."""

    annotation: VocAnnotation | None  # without objects for an image without XML; None if it cannot be read
    header: ImageHeader | None  # None if the image cannot be read
    xml_error: str = ""  # why there is no annotation, starting with the file; else empty
    image_error: str = ""  # the same for the image
    image_hash: int | None = None  # 64-bit difference hash, if requested and the image can be read


def read_samples(
    samples: Sequence[Sample],
    *,
    decode: bool = False,
    hashes: bool = False,
    cache: AnnotationCache | None = None,
) -> list[SampleContent]:
    """Read the annotation and image header of every sample in threads, but not those with a `problem`.

    Args:
        samples: the images.
        decode: read every pixel too, which finds damage in the middle of a file.
        hashes: compute the difference hash too.
        cache: an open one of these and more samples; None opens one.
    """
    opened = nullcontext(cache) if cache else AnnotationCache(samples)
    with opened as cache, ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        chunks = [samples[start : start + _CHUNK] for start in range(0, len(samples), _CHUNK)]
        read = pool.map(lambda chunk: [_read_sample(one, cache, decode, hashes) for one in chunk], chunks)
        contents: Iterable[SampleContent] = chain.from_iterable(read)
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
        self._folders: dict[str, dict[str, dict[str, Any]]] = {os.path.dirname(path): {} for path in paths}
        self._changed: set[str] = set()

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

    def open(self, path: Path) -> CachedFile:
        """Return what is known of a file."""
        folder, name = os.path.split(path)
        try:
            state = os.stat(path)
        except OSError:
            return CachedFile(path, {}, lambda _: None)  # the reader's message names the reason
        stamp = [state.st_size, state.st_mtime_ns, state.st_ctime_ns]
        entry = self._folders[folder].get(name)

        def keep(changed: dict[str, Any]) -> None:
            self._folders[folder][name] = changed
            self._changed.add(folder)

        return CachedFile(path, entry if entry and entry["stamp"] == stamp else {"stamp": stamp}, keep)


@dataclass(frozen=True)
class CachedFile:
    """What reading one file gave before; `keep` stores the entry when there is more."""

    path: Path
    entry: dict[str, Any]
    keep: Callable[[dict[str, Any]], None]

    def read(self, key: str, reader: Callable[[Path], Any]) -> Any:
        """Return reader(path), a JSON value, from the cache if the file is unchanged; `key` names the reader.

        Raises:
            UserError: the reader raised it, now or before.
        """
        if key not in self.entry:
            try:
                self.entry[key] = {"value": reader(self.path)}
            except UserError as error:
                if isinstance(error.__context__, OSError) and error.__context__.errno:
                    raise  # permissions or a disk error: not about the content, so not cached
                self.entry[key] = {"error": str(error)}
            self.keep(self.entry)
        if "error" in self.entry[key]:
            raise UserError(self.entry[key]["error"])
        return self.entry[key]["value"]


def _cache_file(folder: str) -> Path:
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
            annotation = _from_json(cache.open(sample.xml_path).read("annotation", _annotation_to_json))
    except UserError as error:
        annotation, xml_error = None, str(error)
    try:
        file = cache.open(sample.image_path)
        if hashes or "hash" in file.entry:  # damage found once is reported every time
            *sides, image_hash = file.read("hash", _hash_to_json)
        else:
            sides = file.read("header", lambda path: _header_to_json(read_header(path)))
        if decode or "decoded" in file.entry:
            file.read("decoded", verify_image)
        header = ImageHeader(*sides)
    except UserError as error:
        image_error = str(error)
    return SampleContent(annotation, header, xml_error, image_error, image_hash if hashes else None)


def _header_to_json(header: ImageHeader) -> list[int]:
    return [header.height, header.width, header.orientation]


def _hash_to_json(path: Path) -> list[int]:
    header, image_hash = hash_image(path)
    return [*_header_to_json(header), image_hash]


def _annotation_to_json(path: Path) -> list[Any]:
    values = vars(read_annotation(path))  # `astuple` copies every number, which takes longer than parsing
    return list({**values, "objects": [tuple(vars(item).values()) for item in values["objects"]]}.values())


def _from_json(stored: Sequence[Any]) -> VocAnnotation:
    """Return the annotation of `_annotation_to_json`; JSON turns tuples into lists."""
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
