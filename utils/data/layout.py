"""Where the images of a split lie: the three folder layouts, split lists, and the splits used by default.

1. a VOCdevkit: a folder of folders in VOC layout; a split is `VOC2007/trainval`, a list in ImageSets/Main;
2. one folder in VOC layout (Annotations/, JPEGImages/, ImageSets/Main/); a split is `trainval`;
3. images and XML side by side, as labelImg writes them: one split `all`, or folders train/, valid/ and test/.

A folder in VOC layout without any list has the one split `all` too.
"""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.console import warn
from utils.errors import UserError
from utils.images import IMAGE_SUFFIXES

_EVERYTHING = "all"
_FLAT_SPLITS = ("train", "trainval", "valid", "val", "test")


@dataclass(frozen=True)
class Sample:
    """One image of a split.

    Attributes:
        image_id: unique over all splits of the data, such as "VOC2007/000005".
        image_path: the image file.
        xml_path: its annotation; None means an image without objects.
        problem: what looking for the files already showed to be wrong; empty when nothing is.
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
    if _is_voc(root):
        return _list_names(root)
    if years := _list_years(root):
        return [f"{year.name}/{name}" for year in years for name in _list_names(year)]
    folders = [name for name in _FLAT_SPLITS if _has_images(root / name)]
    if folders:
        return sorted(folders)
    if _has_images(root):
        return [_EVERYTHING]
    raise UserError(_nothing_found(root))


def list_main_splits(data_dir: Path | str) -> list[str]:
    """List the splits as `list_splits` does, without VOC's lists of one class, such as cat_train.

    Raises:
        UserError: as `list_splits`.
    """
    root = Path(data_dir)
    names = list_splits(root)
    return [name for name in names if not _is_class_list(root, name)] or names


def voc_folders(data_dir: Path | str) -> list[Path]:
    """List the folders in VOC layout: this one, or those of a VOCdevkit; none for images beside their XML."""
    root = Path(data_dir)
    return [root] if _is_voc(root) else _list_years(root)


def choose_training_splits(
    data_dir: Path | str, named: Sequence[str] | None = None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Choose what to train on and what to select on where the user does not say.

    Each folder gives `train` and `val` where both exist, else `trainval`, else `train` alone, else
    everything. A test list is never chosen.

    Args:
        data_dir: folder in one of the three layouts.
        named: the training splits that the user named; a `train` among them brings the `val` beside it.

    Returns:
        Names of the training splits and of the validation splits; the latter is empty when a part of the
        training images has to be held out.

    Raises:
        UserError: no layout is recognised, or there is no list to train on.
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
            wanted = ("train",) if f"{folder}train" in val_of else ("trainval", "train", _EVERYTHING)
            train += [folder + name for name in wanted if name in names][:1]
    if not train:
        raise UserError(
            f"{data_dir}: no ImageSets/Main/train.txt, trainval.txt or folder train; name one of "
            f"{_listed(splits)} with --train"
        )
    return tuple(train), tuple(val_of[split] for split in train if split in val_of)


def choose_evaluation_splits(data_dir: Path | str) -> tuple[str, ...]:
    """Choose what to evaluate on when the user names nothing: the test lists, else the val lists.

    Raises:
        UserError: there is neither; names the splits that exist.
    """
    names = list_splits(data_dir)
    for wanted in (("test",), ("val", "valid")):
        found = tuple(name for name in names if name.rpartition("/")[2] in wanted)
        if found:
            return found
    raise UserError(f"{data_dir}: no test or val list; name one of {_listed(names)} with --split")


def list_unused(data_dir: Path | str) -> list[tuple[Path, str]]:
    """List the folders in VOC layout with images that no list names, or annotations without an image.

    Returns:
        Pairs of a folder and what is unused in it.
    """
    root = Path(data_dir)
    unused = []
    for folder in [root] if _is_voc(root) else _list_years(root):
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
    data_dir: Path | str, split: str, *, unlabelled: str = "skip", say: Callable[[str], None] = warn
) -> list[Sample]:
    """List the images of one split with their annotations, in the order of the list.

    Ids that are named twice count once. A missing file does not end the listing: the sample says so in
    `problem`, or its path leads nowhere, and the scan collects it. In a flat folder images without XML are
    left out with a warning.

    Args:
        data_dir: folder in one of the three layouts.
        split: a name that `list_splits` gives.
        unlabelled: "skip", or "background" to take images without XML as images without objects.
        say: takes the warnings.

    Raises:
        UserError: the split does not exist, or its list is empty, not text, or leads out of the folder.
    """
    root = Path(data_dir)
    if not root.is_dir():
        raise UserError(_nothing_found(root))
    year, _, name = split.rpartition("/")
    if _is_voc(root) and not year:
        return _load_voc(root, name, "", unlabelled, say)
    if year and ".." not in Path(year).parts and not Path(year).is_absolute() and _is_voc(root / year):
        return _load_voc(root / year, name, f"{year}/", unlabelled, say)
    names = list_splits(root)
    name = {"val": "valid", "valid": "val"}.get(split, split) if split not in names else split
    if name not in names or _is_voc(root) or _list_years(root):
        raise UserError(_no_such_split(root, split, names))
    folder, prefix = (root, "") if name == _EVERYTHING else (root / name, f"{name}/")
    return _load_flat(folder, prefix, unlabelled, say)


def _load_voc(
    folder: Path, split: str, prefix: str, unlabelled: str, say: Callable[[str], None]
) -> list[Sample]:
    images = _index_images(folder / "JPEGImages")
    list_path = folder / "ImageSets" / "Main" / f"{split}.txt"
    if split == _EVERYTHING and not list_path.exists():
        lines = sorted(images)
    else:
        lines = _read_list(list_path, folder)
    found: dict[str, Sample] = {}
    repeated = 0
    for line in lines:
        name = _resolve_id(line, images)
        if ".." in Path(name).parts or Path(name).is_absolute() or "\\" in name:
            raise UserError(f"{list_path}: the id {name[:80]!r} leads out of the data folder")
        repeated += name in found
        if name not in found:
            found[name] = _make_sample(folder, name, prefix, images.get(name, []), unlabelled)
    if repeated:
        say(f"{list_path}: {repeated} ids are listed twice; each counts once")
    return list(found.values())


def _make_sample(folder: Path, name: str, prefix: str, candidates: Sequence[Path], unlabelled: str) -> Sample:
    xml_path: Path | None = folder / "Annotations" / f"{name}.xml"
    image_path = candidates[0] if candidates else folder / "JPEGImages" / f"{name}.jpg"
    problem = (
        _find_doubt(candidates) if candidates else f"{image_path}: no image of this id, whatever its ending"
    )
    if unlabelled == "background" and xml_path is not None and not xml_path.exists():
        xml_path = None
    return Sample(prefix + name, image_path, xml_path, problem)


def _find_doubt(candidates: Sequence[Path]) -> str:
    if len(candidates) == 1:
        return ""
    return f"{candidates[0]}: {candidates[1].name} lies beside it; keep one of the two"


def _load_flat(folder: Path, prefix: str, unlabelled: str, say: Callable[[str], None]) -> list[Sample]:
    samples = []
    left_out = 0
    for name, candidates in sorted(_index_images(folder).items()):
        xml_path: Path | None = folder / f"{name}.xml"
        if xml_path is not None and not xml_path.exists():
            if unlabelled == "skip":
                left_out += 1
                continue
            xml_path = None
        samples.append(Sample(prefix + name, candidates[0], xml_path, _find_doubt(candidates)))
    if left_out:
        say(f"{folder}: {left_out} images without XML left out; --unlabelled background keeps them as empty")
    if not samples:
        raise UserError(f"{folder}: no image has an XML file beside it")
    return samples


def _read_list(path: Path, folder: Path) -> list[str]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(_no_such_split(folder, path.stem, _list_names(folder), path)) from None
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
    """Return the lines of a list, none where it cannot be read."""
    try:
        return _read_list(path, path.parents[2])
    except UserError:
        return []


def _resolve_id(line: str, images: dict[str, list[Path]]) -> str:
    """Find the id in a line that may hold a file ending too, or a second column of 1, 0 or -1."""
    first, _, last = line.rpartition(" ") if " " in line else line.rpartition("\t")
    name = first.strip() if last in ("1", "0", "-1") and line not in images and first.strip() else line
    if name not in images and name.lower().endswith(IMAGE_SUFFIXES):
        return name.rpartition(".")[0]
    return name


def _index_images(folder: Path) -> dict[str, list[Path]]:
    """Map each file name without its ending to the image files of that name; subfolders are not entered."""
    index: dict[str, list[Path]] = defaultdict(list)
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise UserError(f"{folder}: cannot list the images: {error.strerror}") from None
    for path in paths:
        if path.suffix.lower() in IMAGE_SUFFIXES:
            index[path.stem].append(path)
    return dict(index)


def _is_voc(folder: Path) -> bool:
    return (folder / "Annotations").is_dir() and (folder / "JPEGImages").is_dir()


def _list_years(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if _is_voc(path)) if root.is_dir() else []


def _list_names(folder: Path) -> list[str]:
    lists = sorted(path.stem for path in (folder / "ImageSets" / "Main").glob("*.txt"))
    return lists or [_EVERYTHING]


def _is_class_list(root: Path, split: str) -> bool:
    """Tell whether a split is a class's list: ids, and 1, 0 or -1 for yes, difficult and no."""
    folder, _, name = split.rpartition("/")
    if name.rpartition("_")[2] not in ("train", "val", "trainval", "test") or "_" not in name:
        return False
    try:
        text = (root / folder / "ImageSets" / "Main" / f"{name}.txt").read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return False
    rows = [line.split() for line in text.splitlines() if line.strip()]
    return bool(rows) and all(len(row) == 2 and row[1] in ("1", "0", "-1") for row in rows)


def _has_images(folder: Path) -> bool:
    return folder.is_dir() and any(path.suffix.lower() in IMAGE_SUFFIXES for path in folder.iterdir())


def _group_by_folder(splits: Sequence[str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for split in splits:
        folder, slash, name = split.rpartition("/")
        groups[folder + slash].append(name)
    return dict(groups)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (" ..." if len(names) > 12 else "")


def _no_such_split(root: Path, split: str, names: Sequence[str], path: Path | None = None) -> str:
    near = difflib.get_close_matches(split, names, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return f"{path or root}: no split {split!r}{hint}; there are: {_listed(names)}"


def _nothing_found(root: Path) -> str:
    state = "no data in VOC layout here" if root.is_dir() else "no such folder"
    return (
        f"{root}: {state}; wanted is a VOCdevkit, a folder with Annotations/, JPEGImages/ and ImageSets/Main/"
        ", or images with XML beside them; without data of your own try --demo"
    )
