"""Samples of a data set: its splits in one of three folder layouts, and the files of each image.

1. a VOCdevkit: a folder of folders in VOC layout; a split is `VOC2007/trainval`, a list in ImageSets/Main;
2. one folder in VOC layout (Annotations/, JPEGImages/, ImageSets/Main/); a split is `trainval`;
3. images and XML side by side, as labelImg writes them: one split `all`, or folders train/, valid/ and test/.

A folder in VOC layout without lists has the one split `all` too.
"""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.cli.console import plural, warn
from utils.cli.errors import UserError
from utils.cli.files import read_text
from utils.cli.inputs import check_data_folder, describe_layouts

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm")
EVERYTHING = "all"
FLAT_SPLITS = ("train", "trainval", "valid", "val", "test")


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


def list_splits(data_dir: Path | str) -> list[str]:
    """List the names of all splits of the data, sorted.

    Raises:
        UserError: the folder is missing, or in none of the three layouts.
    """
    root = Path(data_dir)
    if is_voc(root):
        return _list_names(root)
    if years := _list_years(root):
        return [f"{year.name}/{name}" for year in years for name in _list_names(year)]
    folders = [name for name in FLAT_SPLITS if _has_images(root / name)]
    if folders:
        return sorted(folders)
    if _has_images(root):
        return [EVERYTHING]
    raise UserError(describe_layouts(root))


def list_main_splits(data_dir: Path | str) -> list[str]:
    """List the splits as `list_splits` does, without VOC's lists of one class, such as cat_train."""
    root = Path(data_dir)
    names = list_splits(root)
    return [name for name in names if not _is_class_list(root, name)] or names


def voc_folders(data_dir: Path | str) -> list[Path]:
    """List the folders in VOC layout: this one, or those of a VOCdevkit; none for a flat folder."""
    root = Path(data_dir)
    return [root] if is_voc(root) else _list_years(root)


def choose_training_splits(
    data_dir: Path | str, named: Sequence[str] | None = None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Choose the splits to train and to validate on, or the latter beside the training splits that are named.

    Each folder gives `train` and `val` if both exist, else `trainval`, else `train` alone, else everything. A
    test list is never chosen. Without validation splits a part of the training images has to be held out.

    Raises:
        UserError: no layout is recognized, or there is no list to train on.
    """
    splits = list_splits(data_dir)
    groups: dict[str, list[str]] = defaultdict(list)
    for split in splits:
        folder, slash, name = split.rpartition("/")
        groups[folder + slash].append(name)
    val_of = {
        f"{folder}train": folder + name
        for folder, names in groups.items()
        for name in ("valid", "val")
        if "train" in names and name in names
    }
    train = list(named or ())
    if not train:
        for folder, names in groups.items():
            wanted = ("train",) if f"{folder}train" in val_of else ("trainval", "train", EVERYTHING)
            train += [folder + name for name in wanted if name in names][:1]
    if not train:
        raise UserError(
            f"{data_dir}: no ImageSets/Main/train.txt, trainval.txt or folder train; name one of "
            f"{_listed(splits)} with --train"
        )
    val = tuple(val_of[split] for split in train if split in val_of)
    return tuple(train), tuple(split for split in val if split not in train)


def choose_evaluation_splits(data_dir: Path | str) -> tuple[str, ...]:
    """Choose the splits to evaluate on: test, else val lists; a UserError tells that there is neither."""
    names = list_splits(data_dir)
    for wanted in (("test",), ("val", "valid")):
        found = tuple(name for name in names if name.rpartition("/")[2] in wanted)
        if found:
            return found
    raise UserError(f"{data_dir}: no test or val list; name one of {_listed(names)} with --split")


def list_unused(data_dir: Path | str) -> list[tuple[Path, str]]:
    """List VOC folders with images in no list or annotations without an image, and what is unused."""
    root = Path(data_dir)
    unused = []
    for folder in voc_folders(root):
        images = _index_images(folder / "JPEGImages")
        lists = sorted((folder / "ImageSets" / "Main").glob("*.txt"))
        named = {_resolve_id(line, images) for path in lists for line in _lines_of(path)}
        left = sorted(set(images) - named) if lists else []
        if left:
            unused.append((folder, f"in no list: {plural(len(left), 'image')}, such as {left[0]}"))
        lonely = sorted({path.stem for path in (folder / "Annotations").glob("*.xml")} - set(images))
        if lonely:
            unused.append((folder, f"{len(lonely)} annotations have no image, such as {lonely[0]}.xml"))
    return unused


def load_samples(
    data_dir: Path | str, split: str, *, unlabelled: str = "skip", on_warning: Callable[[str], None] = warn
) -> list[Sample]:
    """List the images of one split with their annotations, in the order of the list.

    A repeated id counts once. A missing file is no error here: the scan reports it with all the others. In a
    flat folder images without XML are skipped with a warning, unless `unlabelled` is "background": then they,
    and those without XML in VOC lists, are images without objects.

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
        raise UserError(_no_such_split(root, split, names))
    folder, prefix = (root, "") if name == EVERYTHING else (root / name, f"{name}/")
    return _load_flat(folder, prefix, unlabelled, on_warning)


def exists(path: Path) -> bool:
    """Tell whether a file exists. Without permission to know, assume so: reading it raises the error."""
    try:
        return path.exists()
    except OSError:
        return True


def is_voc(folder: Path) -> bool:
    """Tell whether this is a folder in VOC layout."""
    return (folder / "Annotations").is_dir() and (folder / "JPEGImages").is_dir()


def _has_images(folder: Path) -> bool:
    return folder.is_dir() and any(path.suffix.lower() in IMAGE_SUFFIXES for path in folder.iterdir())


def _no_such_split(root: Path, split: str, names: Sequence[str], path: Path | None = None) -> str:
    """Return the error message for a missing split; `path` is where its list would be."""
    near = difflib.get_close_matches(split, names, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return f"{path or root}: no split {split!r}{hint}; there are: {_listed(names)}"


def _list_years(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if is_voc(path)) if root.is_dir() else []


def _list_names(folder: Path) -> list[str]:
    """List the splits of a folder in VOC layout: its lists, or all images if it has none."""
    lists = sorted(path.stem for path in (folder / "ImageSets" / "Main").glob("*.txt"))
    return lists or [EVERYTHING]


def _is_class_list(root: Path, split: str) -> bool:
    """Tell whether a split is VOC's list of one class: ids with a column of 1, 0 (difficult) or -1."""
    folder, _, name = split.rpartition("/")
    if name.rpartition("_")[2] not in ("train", "val", "trainval", "test") or "_" not in name:
        return False
    try:
        text = (root / folder / "ImageSets" / "Main" / f"{name}.txt").read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return False
    rows = [line.split() for line in text.splitlines() if line.strip()]
    return bool(rows) and all(len(row) == 2 and row[1] in ("1", "0", "-1") for row in rows)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (" ..." if len(names) > 12 else "")


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
        xml_path: Path | None = folder / "Annotations" / f"{name}.xml"
        if unlabelled == "background" and xml_path is not None and not exists(xml_path):
            xml_path = None
        found[name] = _make_sample(
            prefix + name, images.get(name, []), folder / f"JPEGImages/{name}.jpg", xml_path
        )
    if repeated:
        on_warning(f"{list_path}: {plural(repeated, 'id')} listed twice; each counts once")
    return list(found.values())


def _make_sample(image_id: str, candidates: Sequence[Path], expected: Path, xml_path: Path | None) -> Sample:
    image_path, problem = expected, f"{expected}: no image with this id"
    if candidates:
        image_path, problem = candidates[0], ""
    if len(candidates) > 1:
        problem = f"{candidates[0]}: {candidates[1].name} lies beside it; keep one of the two"
    return Sample(image_id, image_path, xml_path, problem)


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
        samples.append(_make_sample(prefix + name, candidates, candidates[0], xml_path))
    if skipped:
        advice = "--unlabelled background keeps them as empty"
        on_warning(f"{folder}: skipped {skipped} images without XML; {advice}")
    if not samples:
        raise UserError(f"{folder}: no image has an XML file beside it")
    return samples


def _read_list(path: Path, folder: Path) -> list[str]:
    if not exists(path):
        raise UserError(_no_such_split(folder, path.stem, _list_names(folder), path))
    lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
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
