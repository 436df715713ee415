"""Search for the images of annotations, also by paths of another machine, and a count of the others."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from utils.cli.console import plural
from utils.cli.files import nfc
from utils.formats.parsing import list_files, path_inside, shown


class ImageFolder:
    """The images below a folder; no other file is ever returned.

    Attributes:
        found_by_name: images that were found by the end of their path only.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.found_by_name: set[Path] = set()

    def find(self, text: Any) -> Path:
        r"""Return the image of an untrusted path such as D:\data\a.jpg, ../../a.jpg or a%20b.jpg?size=1.

        A path that exists below the folder is taken as it stands. Otherwise the file name decides, in any
        case; where several images share it, its case and the folders in front of it do. The path returned
        may be that of no file.

        Raises:
            ValueError: it is no path inside the folder, or fits several images.
        """
        forms = (text, text.partition("?")[0]) if isinstance(text, str) else ()
        texts = dict.fromkeys(plain for form in forms for plain in (form, unquote(form)))
        inside = [path for form in texts if (path := path_inside(self.folder, form)) is not None]
        for path in inside:
            # A suffix in another case is a name in another case, which may fit several.
            if os.path.isfile(path) and any(form.endswith(path.suffix) for form in texts):
                return path
        for form in texts:
            parts = tuple(nfc(form.replace("\\", "/")).strip().split("/"))
            found = self._by_name.get(parts[-1].casefold(), [])
            for count in range(1, len(parts) + 1):
                if len(found) > 1:
                    found = [path for path in found if _parts(path)[-count:] == parts[-count:]] or found
            if len(found) > 1:
                raise ValueError(f"{shown(text)} may be {found[0]} or {found[1]}; rename one of them")
            if found:
                self.found_by_name.add(found[0])
                return found[0]
        if not inside:
            raise ValueError(f"{shown(text)} is no path inside {self.folder} and no name of an image there")
        return inside[0]

    def notes(self) -> list[str]:
        """Say how many images were found by name."""
        found = f"{plural(len(self.found_by_name), 'image')} found by file name below {self.folder}"
        return [found] if self.found_by_name else []

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = defaultdict(list)
        for path in list_files(self.folder.absolute()):
            found[nfc(path.name).casefold()].append(path)
        return found


def note_unused(images: Iterable[Path], used: Iterable[Path], reason: str) -> list[str]:
    """Say how many images are not among those used; `reason` follows their number."""
    known = {os.path.abspath(path) for path in used}
    others = [path for path in dict.fromkeys(images) if os.path.abspath(path) not in known]
    return [f"{plural(len(others), 'image')} {reason}, such as {others[0]}, skipped"] if others else []


def _parts(path: Path) -> tuple[str, ...]:
    return tuple(map(nfc, path.parts))
