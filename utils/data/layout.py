"""Folder layouts of a data set: the splits in it, and which are used by default.

1. a VOCdevkit: a folder of folders in VOC layout; a split is `VOC2007/trainval`, a list in ImageSets/Main;
2. one folder in VOC layout (Annotations/, JPEGImages/, ImageSets/Main/); a split is `trainval`;
3. images and XML side by side, as labelImg writes them: one split `all`, or folders train/, valid/ and test/.

A folder in VOC layout without lists has the one split `all` too.
"""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from utils.cli.errors import UserError
from utils.cli.inputs import describe_layouts

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm")
EVERYTHING = "all"
FLAT_SPLITS = ("train", "trainval", "valid", "val", "test")


def list_splits(data_dir: Path | str) -> list[str]:
    """List the names of all splits of the data, sorted.

    Raises:
        UserError: the folder is missing, or in none of the three layouts.
    """
    root = Path(data_dir)
    if is_voc(root):
        return list_names(root)
    if years := _list_years(root):
        return [f"{year.name}/{name}" for year in years for name in list_names(year)]
    folders = [name for name in FLAT_SPLITS if _has_images(root / name)]
    if folders:
        return sorted(folders)
    if _has_images(root):
        return [EVERYTHING]
    raise UserError(describe_layouts(root))


def list_main_splits(data_dir: Path | str) -> list[str]:
    """List the splits as `list_splits` does, without VOC's lists of one class, such as cat_train.

    Raises:
        UserError: as `list_splits`.
    """
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
    """Choose the splits to train and to validate on.

    Each folder gives `train` and `val` if both exist, else `trainval`, else `train` alone, else everything. A
    test list is never chosen.

    Args:
        data_dir: folder in one of the three layouts.
        named: training splits that the user named; the `val` beside a `train` is used for validation.

    Returns:
        Names of the training and of the validation splits; no validation splits if a part of the training
        images has to be held out.

    Raises:
        UserError: no layout is recognized, or there is no list to train on.
    """
    splits = list_splits(data_dir)
    groups = _group_by_folder(splits)
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
    """Choose the splits to evaluate on: the test lists, else the val lists.

    Raises:
        UserError: there is neither; lists the splits.
    """
    names = list_splits(data_dir)
    for wanted in (("test",), ("val", "valid")):
        found = tuple(name for name in names if name.rpartition("/")[2] in wanted)
        if found:
            return found
    raise UserError(f"{data_dir}: no test or val list; name one of {_listed(names)} with --split")


def is_voc(folder: Path) -> bool:
    """Tell whether this is a folder in VOC layout."""
    return (folder / "Annotations").is_dir() and (folder / "JPEGImages").is_dir()


def _has_images(folder: Path) -> bool:
    return folder.is_dir() and any(path.suffix.lower() in IMAGE_SUFFIXES for path in folder.iterdir())


def no_such_split(root: Path, split: str, names: Sequence[str], path: Path | None = None) -> str:
    """Return the error message for a missing split; `path` is where its list would be."""
    near = difflib.get_close_matches(split, names, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return f"{path or root}: no split {split!r}{hint}; there are: {_listed(names)}"


def _list_years(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if is_voc(path)) if root.is_dir() else []


def list_names(folder: Path) -> list[str]:
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


def _group_by_folder(splits: Sequence[str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for split in splits:
        folder, slash, name = split.rpartition("/")
        groups[folder + slash].append(name)
    return dict(groups)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (" ..." if len(names) > 12 else "")
