"""Samples of a split: the paths of each image and its annotation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.cli.console import warn
from utils.cli.errors import UserError
from utils.cli.inputs import check_data_folder
from utils.data.layout import (
    EVERYTHING,
    IMAGE_SUFFIXES,
    is_voc,
    list_names,
    list_splits,
    no_such_split,
    voc_folders,
)


@dataclass(frozen=True)
class Sample:
    """One image of a split.

    Attributes:
        image_id: unique over all splits of the data, such as "VOC2007/000005".
        image_path: the image file.
        xml_path: its annotation; None means an image without objects.
        problem: why the image cannot be found, or not without doubt; else empty.
    """

    image_id: str
    image_path: Path
    xml_path: Path | None
    problem: str = ""


def exists(path: Path) -> bool:
    """Tell whether a file exists. Without permission to know, assume so: reading it raises the error."""
    try:
        return path.exists()
    except OSError:
        return True


def list_unused(data_dir: Path | str) -> list[tuple[Path, str]]:
    """List folders in VOC layout with images in no list or annotations without an image.

    Returns:
        Pairs of a folder and what is unused in it.
    """
    root = Path(data_dir)
    unused = []
    for folder in voc_folders(root):
        images = _index_images(folder / "JPEGImages")
        lists = sorted((folder / "ImageSets" / "Main").glob("*.txt"))
        named = {_resolve_id(line, images) for path in lists for line in _lines_of(path)}
        left = sorted(set(images) - named) if lists else []
        if left:
            unused.append((folder, f"{len(left)} images are in no list, such as {left[0]}"))
        lonely = sorted({path.stem for path in (folder / "Annotations").glob("*.xml")} - set(images))
        if lonely:
            unused.append((folder, f"{len(lonely)} annotations have no image, such as {lonely[0]}.xml"))
    return unused


def load_samples(
    data_dir: Path | str, split: str, *, unlabelled: str = "skip", on_warning: Callable[[str], None] = warn
) -> list[Sample]:
    """List the images of one split with their annotations, in the order of the list.

    A repeated id counts once. A missing file is no error here: the scan reports it with all the others. In a
    flat folder images without XML are skipped with a warning.

    Args:
        data_dir: folder in one of the three layouts.
        split: a name that `list_splits` gives.
        unlabelled: "skip", or "background" to take images without XML as images without objects.
        on_warning: receives the warnings.

    Raises:
        UserError: the split does not exist, or its list is empty, not text, or has an id outside the folder.
    """
    root = Path(data_dir)
    check_data_folder(root)
    year, _, name = split.rpartition("/")
    if is_voc(root) and not year:
        return _load_voc(root, name, "", unlabelled, on_warning)
    if year and ".." not in Path(year).parts and not Path(year).is_absolute() and is_voc(root / year):
        return _load_voc(root / year, name, f"{year}/", unlabelled, on_warning)
    names = list_splits(root)
    name = {"val": "valid", "valid": "val"}.get(split, split) if split not in names else split
    if name not in names or voc_folders(root):
        raise UserError(no_such_split(root, split, names))
    folder, prefix = (root, "") if name == EVERYTHING else (root / name, f"{name}/")
    return _load_flat(folder, prefix, unlabelled, on_warning)


def _load_voc(
    folder: Path, split: str, prefix: str, unlabelled: str, on_warning: Callable[[str], None]
) -> list[Sample]:
    images = _index_images(folder / "JPEGImages")
    list_path = folder / "ImageSets" / "Main" / f"{split}.txt"
    if split == EVERYTHING and not list_path.exists():
        lines = sorted(images)
    else:
        lines = _read_list(list_path, folder)
    found: dict[str, Sample] = {}
    repeated = 0
    for line in lines:
        name = _resolve_id(line, images)
        if ".." in Path(name).parts or Path(name).is_absolute() or "\\" in name:
            raise UserError(f"{list_path}: the id {name[:80]!r} is outside the data folder")
        repeated += name in found
        if name not in found:
            found[name] = _make_sample(folder, name, prefix, images.get(name, []), unlabelled)
    if repeated:
        on_warning(f"{list_path}: {repeated} ids are listed twice; each counts once")
    return list(found.values())


def _make_sample(folder: Path, name: str, prefix: str, candidates: Sequence[Path], unlabelled: str) -> Sample:
    xml_path: Path | None = folder / "Annotations" / f"{name}.xml"
    image_path = candidates[0] if candidates else folder / "JPEGImages" / f"{name}.jpg"
    problem = _find_ambiguity(candidates) if candidates else f"{image_path}: no image with this id"
    if unlabelled == "background" and xml_path is not None and not exists(xml_path):
        xml_path = None
    return Sample(prefix + name, image_path, xml_path, problem)


def _find_ambiguity(candidates: Sequence[Path]) -> str:
    if len(candidates) == 1:
        return ""
    return f"{candidates[0]}: {candidates[1].name} lies beside it; keep one of the two"


def _load_flat(folder: Path, prefix: str, unlabelled: str, on_warning: Callable[[str], None]) -> list[Sample]:
    samples = []
    skipped = 0
    for name, candidates in sorted(_index_images(folder).items()):
        xml_path: Path | None = folder / f"{name}.xml"
        if xml_path is not None and not exists(xml_path):
            if unlabelled == "skip":
                skipped += 1
                continue
            xml_path = None
        samples.append(Sample(prefix + name, candidates[0], xml_path, _find_ambiguity(candidates)))
    if skipped:
        advice = "--unlabelled background keeps them as empty"
        on_warning(f"{folder}: skipped {skipped} images without XML; {advice}")
    if not samples:
        raise UserError(f"{folder}: no image has an XML file beside it")
    return samples


def _read_list(path: Path, folder: Path) -> list[str]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(no_such_split(folder, path.stem, list_names(folder), path)) from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text file; write one image id a line") from None
    except OSError as error:
        raise UserError(f"{path}: cannot read the split: {error.strerror}") from None
    if "\0" in text:
        raise UserError(f"{path}: not a text file; write one image id a line")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise UserError(f"{path}: the split is empty; write one image id a line")
    return lines


def _lines_of(path: Path) -> list[str]:
    """Return the lines of a list, none if it cannot be read."""
    try:
        return _read_list(path, path.parents[2])
    except UserError:
        return []


def _resolve_id(line: str, images: dict[str, list[Path]]) -> str:
    """Return the id in a line, without a file suffix or a second column of 1, 0 or -1."""
    first, _, last = line.rpartition(" ") if " " in line else line.rpartition("\t")
    name = first.strip() if last in ("1", "0", "-1") and line not in images and first.strip() else line
    if name not in images and name.lower().endswith(IMAGE_SUFFIXES):
        return name.rpartition(".")[0]
    return name


def _index_images(folder: Path) -> dict[str, list[Path]]:
    """Map each stem to its image files; subfolders are not searched."""
    index: dict[str, list[Path]] = defaultdict(list)
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise UserError(f"{folder}: cannot list the images: {error.strerror}") from None
    for path in paths:
        if path.suffix.lower() in IMAGE_SUFFIXES:
            index[path.stem].append(path)
    return dict(index)
