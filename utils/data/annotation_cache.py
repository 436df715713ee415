"""What the files of a sample hold: read once, and again only when a file changes.

Facts do not depend on the wanted classes or on what a split is for, so that every command shares them. They
are kept under runs/cache, never among the user's data; a file counts as unchanged while its size and the
times of its last changes, of content and of rights, are the same.
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
from utils.data.near_duplicates import hash_image
from utils.data.samples import Sample
from utils.data.voc import VocAnnotation, VocObject, read_annotation
from utils.vision.image_reader import ImageHeader, read_header, verify_image

CACHE = Path("runs") / "cache"
_FORMAT = 2  # of the cache's files; another one is not read
_MANY = 500  # images from which a bar is worth its line


@dataclass(frozen=True)
class Facts:
    """What was found in the files of one sample.

    Attributes:
        annotation: of an image without XML one without objects; None when it cannot be read.
        header: None when the image cannot be read.
        xml_fault: why there is no annotation, starting with the file; empty when there is one.
        image_fault: the same of the image.
        image_hash: 64-bit difference hash, when it was asked for and the image can be read.
    """

    annotation: VocAnnotation | None
    header: ImageHeader | None
    xml_fault: str = ""
    image_fault: str = ""
    image_hash: int | None = None


def gather_facts(
    samples: Sequence[Sample], *, decode: bool = False, hashes: bool = False, label: str = "check"
) -> list[Facts]:
    """Read the annotation and the image header of every sample, in threads.

    Args:
        samples: those with a `problem` are not looked at and have neither.
        decode: read every pixel too, which finds damage in the middle of a file.
        hashes: compute the difference hash too, from a small version of the image.
        label: what the bar is called; it is shown for many images.

    Returns:
        One Facts a sample, in their order.
    """
    with FactsCache(samples) as cache, ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        looks: Iterable[Facts] = pool.map(lambda sample: _look(sample, cache, decode, hashes), samples)
        if decode or len(samples) >= _MANY:
            looks = progress(looks, label, total=len(samples))
        return list(looks)


class FactsCache:
    """Remembers what reading a file gave, as long as the file stays what it was; used in a `with` block.

    There is a memory for each folder; one that cannot be read starts empty, and one that cannot be written is
    done without.
    """

    def __init__(self, samples: Sequence[Sample]) -> None:
        paths = [path for sample in samples for path in (sample.image_path, sample.xml_path) if path]
        self._folders: dict[Path, dict[str, dict[str, Any]]] = {path.parent: {} for path in paths}
        self._changed: set[Path] = set()

    def __enter__(self) -> FactsCache:
        for folder, files in self._folders.items():
            with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
                stored = json.loads(_memory_of(folder).read_bytes())
                if stored["format"] == _FORMAT:
                    files.update({name: known for name, known in stored["files"].items() if known["stamp"]})
        return self

    def __exit__(self, *_: object) -> None:
        for folder in self._changed:
            memory = _memory_of(folder)
            own = memory.with_suffix(f".{os.getpid()}")  # several processes may write at once
            with suppress(OSError, UserError):
                CACHE.mkdir(parents=True, exist_ok=True)
                with atomic_write(own, "w") as file:
                    file.write(json.dumps({"format": _FORMAT, "files": self._folders[folder]}))
                os.replace(own, memory)

    def knows(self, path: Path, what: str) -> bool:
        """Tell whether `recall` would not have to read."""
        with suppress(OSError):
            return what in self._known(path)
        return False

    def recall(self, path: Path, what: str, read: Callable[[Path], Any]) -> Any:
        """Return read(path), or what it gave for this very file before.

        Args:
            path: the file.
            what: the name of this kind of reading.
            read: gives what JSON can hold.

        Raises:
            UserError: `read` did, now or before.
        """
        try:
            known = self._known(path)
        except OSError:
            return read(path)  # which says what is wrong
        if what not in known:
            try:
                known[what] = {"value": read(path)}
            except UserError as error:
                if isinstance(error.__context__, OSError) and error.__context__.errno:
                    raise  # a right or a disk, which may be mended, and says nothing of the content
                known[what] = {"error": str(error)}
            self._folders[path.parent][path.name] = known
            self._changed.add(path.parent)
        if "error" in known[what]:
            raise UserError(known[what]["error"])
        return known[what]["value"]

    def _known(self, path: Path) -> dict[str, Any]:
        """Return what is known of a file as it is now."""
        state = os.stat(path)
        stamp = [state.st_size, state.st_mtime_ns, state.st_ctime_ns]
        known = self._folders[path.parent].get(path.name)
        return known if known is not None and known["stamp"] == stamp else {"stamp": stamp}


def _memory_of(folder: Path) -> Path:
    """Return the file that holds what is known of a folder; its name as given stands in the messages."""
    name = f"{Path.cwd()}\0{folder}"
    return CACHE / f"{hashlib.sha256(name.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}.json"


def _look(sample: Sample, cache: FactsCache, decode: bool, hashes: bool) -> Facts:
    if sample.problem:
        return Facts(None, None)
    annotation: VocAnnotation | None = VocAnnotation(None, ())
    header = image_hash = None
    xml_fault = image_fault = ""
    try:
        if sample.xml_path is not None:
            stored = cache.recall(sample.xml_path, "annotation", lambda path: astuple(read_annotation(path)))
            annotation = _restore(stored)
    except UserError as error:
        annotation, xml_fault = None, str(error)
    try:
        sides = cache.recall(sample.image_path, "header", lambda path: astuple(read_header(path)))
        if decode or cache.knows(sample.image_path, "decoded"):  # a fault once found stays one
            cache.recall(sample.image_path, "decoded", verify_image)
        image_hash = cache.recall(sample.image_path, "hash", hash_image) if hashes else None
        header = ImageHeader(*sides)
    except UserError as error:
        image_fault = str(error)
    return Facts(annotation, header, xml_fault, image_fault, image_hash)


def _restore(stored: Sequence[Any]) -> VocAnnotation:
    """Return the annotation whose `astuple` this was, before JSON made lists of its tuples."""
    size, objects, faults = stored
    return VocAnnotation(
        None if size is None else (size[0], size[1]),
        tuple(
            VocObject(name, (box[0], box[1], box[2], box[3]), difficult) for name, box, difficult in objects
        ),
        tuple((number, name, reason) for number, name, reason in faults),
    )
