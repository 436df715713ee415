"""Samples of a data set: the splits of a data folder, and the files of each image; see layouts.py."""

from __future__ import annotations

import difflib
import os
import re
import shlex
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from utils.cli.console import plural, warn
from utils.cli.errors import UserError
from utils.cli.inputs import check_data_folder, describe_layouts
from utils.data.folder_walk import is_image, walk_folder
from utils.data.layouts import (
    EVERYTHING,
    SPLIT_NAMES,
    DataPart,
    describe_contents,
    find_parts,
    group_by_folder,
    read_lines,
)

DEFAULT_LIST = "default"  # CVAT's list of all images
NO_XML = "without XML"
UNREAD_LISTS = ("list outside the layout", "list of other images", "list with an error")


@dataclass(frozen=True)
class Sample:
    """One image of a split."""

    image_id: str  # unique over all splits of the data, such as "VOC2007/000005"
    image_path: Path
    xml_path: Path | None  # its annotation; None means an image without objects
    problem: str = ""  # why the image cannot be found, or not without doubt; else empty


class DataFolder:
    """A data folder: its splits, their samples, and what each file in it is for.

    Attributes:
        root: the folder.
        notes: what to tell of its splits: which images are the training part although no list says so.

    Raises:
        UserError: the folder is missing, cannot be read, or has none of the layouts; says what is in it.
    """

    def __init__(self, root: Path | str) -> None:
        check_data_folder(root)
        self.root = Path(root)
        self._walk = walk_folder(self.root)
        self._ids: dict[str, list[str]] = {}
        self._listed_at: dict[str, str] = {}  # list and line of each full id without an image
        self._class_lists: dict[str, bool] = {}  # whether it is one, by file: VOC has 60 a year
        self.notes: list[str] = []
        self.list_error: UserError | None = None  # of the test list that the other splits depend on
        self._parts = [self._complete_splits(part) for part in find_parts(self._walk)]
        self._samples: dict[tuple[str, str, str], Sample | None] = {}
        self._splits: dict[str, list[tuple[DataPart, str]]] = {}
        for part in self._parts:
            for split, name in part.list_splits():
                self._splits.setdefault(split, []).append((part, name))
        if not any(part.xml or not part.is_flat for part in self._parts):
            raise UserError(describe_layouts(root, describe_contents(self._walk)))

    def list_splits(self) -> list[str]:
        """List the names of all splits."""
        return list(self._splits)

    def list_main_splits(self) -> list[str]:
        """List the splits without VOC's lists of one class, such as cat_train."""
        return [split for split, (first, *_) in self._splits.items() if not self._is_class_list(*first)]

    def list_usual_splits(self) -> list[str]:
        """List the splits called train, trainval, val, valid or test."""
        return [name for name in self._splits if name.rpartition("/")[2] in SPLIT_NAMES.values()]

    def list_folders(self) -> list[Path]:
        """List the folders that can have lists: this one, or those of a VOCdevkit."""
        return [self.root / part.prefix for part in self._parts]

    def find_divided(self) -> dict[str, str]:
        """Return the list or the folder, relative, of each train, val or test split that has one."""
        names = [
            *self.list_usual_splits(),
            *(name for name in self._splits if name.rpartition("/")[2] == EVERYTHING),
        ]
        found = {name: part.origin_of(own) for name in names for part, own in self._splits[name]}
        return {name: origin for name, origin in found.items() if origin}

    def load(self, split: str, unlabelled: str, on_warning: Callable[[str], None]) -> list[Sample]:
        """List the images of one split; see `load_samples`."""
        found: dict[str, Sample] = {}
        skipped: list[str] = []
        for part, name in self._find(split):
            ids = self._ids_of(part, name)
            for image_id in dict.fromkeys(ids):
                key = part.prefix, image_id, unlabelled
                if key not in self._samples:  # splits share images
                    self._samples[key] = self._make_sample(part, image_id, unlabelled)
                sample = self._samples[key]
                if sample is None:
                    skipped.append(image_id)
                else:
                    found[sample.image_id] = sample
            if repeated := len(ids) - len(set(ids)):
                listed = self.root / part.lists[name]
                on_warning(f"{listed}: {plural(repeated, 'id')} listed twice; each counts once")
        place = self.root / split if (self.root / split).is_dir() else self.root
        if skipped:
            advice = "--unlabelled background keeps them as empty"
            counted = f"{plural(len(skipped), 'image')} without XML, such as {', '.join(skipped[:3])}"
            on_warning(f"{place}: skipped {counted}; {advice}")
            if not found:
                raise UserError(f"{place}: no image has an XML file beside it; {advice}")
        return list(found.values())

    def account(self, unlabelled: str, splits: Sequence[str] | None = None) -> dict[str, list[str]]:
        """Say of every file below the folder whether it is used: the files, relative, by what they are.

        Args:
            unlabelled: as for `load_samples`.
            splits: those that are used; None takes all main splits.

        Returns:
            The used files by "image", "annotation" and "list"; the others by such a word and the reason.
        """
        kinds: dict[str, str] = {}
        chosen = self.list_main_splits() if splits is None else splits
        found_in = [pair for split in chosen for pair in self._find(split)]
        for part in self._parts:
            own = {name for owner, name in found_in if owner is part}
            used: set[str] = set()
            others: set[str] = set()
            for name, file in part.lists.items() if part.groups else ():  # joined
                kinds[file] = "list" if _split_of_class_list(name) in own else "list of another split"
            for name in {*(name for _, name in part.list_splits()), *own}:
                is_main = name in own or not self._is_class_list(part, name)
                kind = "list of another split" if is_main else "list of one class"
                try:
                    (used if name in own else others).update(self._ids_of(part, name) if is_main else ())
                    kind = "list" if name in own else kind
                except UserError:
                    kind = "list with an error"
                if name in part.lists:
                    kinds[part.lists[name]] = kind
            for image_id, files in part.images.items():
                xml, reason = part.xml.get(image_id), ""
                if image_id in others and image_id not in used:
                    reason = "of another split"
                elif image_id not in used:
                    reason = "in no list" if part.lists else "beside the folders of the splits"
                elif xml is None and unlabelled == "skip":
                    reason = NO_XML
                elif len(files) > 1:
                    reason = "with the name of another"
                kinds.update(dict.fromkeys(files, f"image {reason}".rstrip()))
                if xml is not None:
                    kinds[xml] = f"annotation of an image {reason}" if reason else "annotation"
            kinds.update(dict.fromkeys(part.second_xml, "annotation beside another of the same image"))
            kinds.update(dict.fromkeys(part.xml_without_image, "annotation without image"))
        found: dict[str, list[str]] = defaultdict(list)
        for file in self._walk.files:
            found[kinds.get(file) or self._other_kind(file)].append(file)
        if self._walk.system_files:
            found["system file"] = self._walk.system_files
        return dict(found)

    def describe_unused(self, unlabelled: str, splits: Sequence[str] = ()) -> str:
        """Count the images and annotations that neither `splits` nor a test split has.

        Those without XML are skipped: loading warns of them. Empty if all are in one.
        """
        kinds = self.account(unlabelled, list(dict.fromkeys([*splits, *filter(_is_test, self._splits)])))
        counts = [
            count_files(kind, files)
            for kind, files in kinds.items()
            if kind.startswith(("image ", "annotation ", *UNREAD_LISTS)) and not kind.endswith(NO_XML)
        ]
        return ", ".join(counts)

    def describe_untrained(self) -> str:
        """Say which images of lists train.py leaves unused by default, and the flag that takes them.

        Empty if there are none. A list that shares images with a test list is not advised.

        Raises:
            UserError: as `choose_training_splits`, or a list cannot be read.
        """
        train, val = choose_training_splits(self)
        ids = {split: self._image_ids(split) for split in self.list_main_splits()}
        tests = {image_id for split in filter(_is_test, ids) for image_id in ids[split]}
        missing = set().union(*ids.values()) - tests.union(*(ids[split] for split in (*train, *val)))
        if not missing:
            return ""
        added: list[str] = []
        covered: set[str] = set()
        for split in sorted(ids, key=lambda split: -len(ids[split] & missing)):
            if (ids[split] & missing) - covered and not ids[split] & tests:
                added.append(split)
                covered |= ids[split]
        named = [*(split for split in train if not ids[split] <= covered), *added]
        advice = f"; to train on all of them: --train {shlex.join(named)}" if missing <= covered else ""
        chosen = ", ".join((*train, *val))
        return f"train.py takes {chosen} and leaves {plural(len(missing), 'listed image')} unused{advice}"

    def _other_kind(self, file: str) -> str:
        suffix = PurePosixPath(file).suffix.lower()
        if is_image(file) or suffix == ".xml":
            return f"{'annotation' if suffix == '.xml' else 'image'} outside the folders of the layout"
        if suffix == ".txt" and "imagesets" in file.casefold().split("/"):
            return "list of another task"
        if suffix == ".txt" and PurePosixPath(file).stem.casefold() in SPLIT_NAMES:
            on_top = any(
                f"{part.prefix}{PurePosixPath(file).name}" == file for part in self._parts if not part.lists
            )
            return "list of other images" if on_top else "list outside the layout"
        return f"other file ({suffix or 'no suffix'})"

    def _find(self, split: str) -> list[tuple[DataPart, str]]:
        """Return the parts that a split is of, each with the split's name there."""
        folder, slash, name = split.rpartition("/")
        plain = SPLIT_NAMES.get(name.casefold(), name)
        for spelling in (name, plain, {"val": "valid", "valid": "val"}.get(plain, plain)):
            if (found := folder + slash + spelling) in self._splits:
                return self._splits[found]
        for part in self._parts:
            if part.prefix == folder + slash:
                if name == EVERYTHING:
                    return [(part, EVERYTHING)]
                if not part.is_flat:
                    place = self.root / part.prefix / "ImageSets" / "Main" / f"{name}.txt"
                    raise UserError(_no_such_split(place, name, [own for _, own in part.list_splits()]))
        raise UserError(_no_such_split(self.root, split, self.list_splits()))

    def _ids_of(self, part: DataPart, name: str) -> list[str]:
        """Return the ids of a split in the order of its list; a repeated one is in it again."""
        if name not in part.lists:
            return part.groups.get(name, sorted(part.images))
        if (file := part.lists[name]) not in self._ids:
            path = self.root / file
            lines = read_lines(path)
            if not lines:
                raise UserError(f"{path}: the split is empty; write one image id a line")
            ids = []
            for number, line in lines.items():
                where = f"{path}: line {number}"
                try:
                    ids.append(part.names.resolve(line))
                except ValueError as error:
                    raise UserError(f"{where}: the id {error} is outside the data folder") from None
                if ids[-1] not in part.images:
                    self._listed_at.setdefault(part.prefix + ids[-1], where)
            self._ids[file] = ids
        return self._ids[file]

    def _image_ids(self, split: str) -> set[str]:
        """Return the full ids of a split that have an image."""
        return {
            part.prefix + image_id
            for part, name in self._find(split)
            for image_id in self._ids_of(part, name)
            if image_id in part.images
        }

    def _complete_splits(self, part: DataPart) -> DataPart:
        """Add the splits that have no list of their own.

        Lists of one class, each with all ids, are joined if there are no others: VoTT's cat_train. What a
        test list alone does not name is divided by folder, or all training. Where val has a list and train
        has none, it may be lost, so that nothing is guessed.
        """
        if not part.lists:
            return part
        main = [name for name in part.lists if not self._is_class_list(part, name)]
        joined: dict[str, list[str]] = defaultdict(list)
        for name in () if main else sorted(part.lists):
            joined[_split_of_class_list(name)] += self._ids_of(part, name)
        groups = {split: list(dict.fromkeys(ids)) for split, ids in joined.items()}
        if {*main, *groups} <= {"test"}:
            try:
                groups = groups or {name: self._ids_of(part, name) for name in part.lists}
                listed = {image_id for name in main or groups for image_id in groups[name]}
                rest = group_by_folder(sorted(part.images.keys() - listed))
                if train := rest.pop(EVERYTHING, rest.pop("train", [])):
                    rest["train"] = train
                    place, names = self.root / part.prefix, " and ".join(sorted(main or groups))
                    counted = plural(len(train), "image")
                    self.notes.append(f"{place}: no training list; train is the {counted} outside {names}")
                groups = rest | groups
            except UserError as error:  # test itself can be asked for, and then raises it too
                self.list_error = error
        return replace(part, groups=groups)

    def _is_class_list(self, part: DataPart, name: str) -> bool:
        """Tell whether a list is VOC's of one class: ids with a column of 1, 0 (difficult) or -1."""
        if name not in part.lists or not _split_of_class_list(name):
            return False
        if (file := part.lists[name]) not in self._class_lists:
            rows: list[list[str]] = []
            with suppress(UserError):  # of a list that is not text, which loading it reports
                lines = list(read_lines(self.root / file).values())
                rows = [line.rsplit(maxsplit=1) for line in lines[:100]]
            are_marks = (len(row) == 2 and row[1] in ("1", "0", "-1") for row in rows)
            self._class_lists[file] = bool(rows) and all(are_marks)
        return self._class_lists[file]

    def _make_sample(self, part: DataPart, image_id: str, unlabelled: str) -> Sample | None:
        """Return the sample of an id, None if it is skipped for want of an XML file."""
        files = part.images.get(image_id, [])
        xml = part.xml.get(image_id)
        if xml is None and unlabelled == "skip":
            if part.is_flat:
                return None
            xml = f"{part.xml_folder}{image_id}.xml"  # the scan reports that it is missing
        path = self.root / (files[0] if files else f"{part.image_folder}{image_id}.jpg")
        problem = ""
        if not files:
            reason = "is a folder" if os.path.isdir(path) else "no image with this id"
            problem = f"{path}: {reason} (named by {self._listed_at[part.prefix + image_id]})"
        if len(files) > 1:
            problem = f"{path}: {PurePosixPath(files[1]).name} lies beside it; keep one of the two"
        return Sample(part.prefix + image_id, path, self.root / xml if xml else None, problem)


def open_data(data: Path | str | DataFolder) -> DataFolder:
    """Return a data folder, as it is or from its path; raises a UserError as `DataFolder`."""
    return data if isinstance(data, DataFolder) else DataFolder(data)


def choose_training_splits(
    data: Path | str | DataFolder, named: Sequence[str] | None = None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Choose the splits to train and to validate on, or the latter beside the training splits that are named.

    Each folder gives `train` and `val` if both exist, else `trainval`, else `train` alone, else everything. A
    test list is never chosen. Without validation splits a part of the training images has to be held out.

    Raises:
        UserError: no layout is recognized, or there is no list to train on.
    """
    folder_of_data = open_data(data)
    splits = folder_of_data.list_splits()
    groups: dict[str, list[str]] = defaultdict(list)
    for split in splits:
        folder, slash, name = split.rpartition("/")
        groups[folder + slash].append(name)
    val_of = {
        f"{folder}train": [folder + name for name in names if name in ("val", "valid")]
        for folder, names in groups.items()
        if "train" in names
    }
    train = list(named or ())
    if not train:
        for folder, names in groups.items():
            wanted = ("train",) if val_of.get(f"{folder}train") else ("trainval", "train", EVERYTHING)
            wanted = (DEFAULT_LIST,) if names == [DEFAULT_LIST] else wanted
            train += [folder + name for name in wanted if name in names][:1]
    if not train:
        if folder_of_data.list_error:
            raise folder_of_data.list_error
        others = [split for split in splits if not _is_test(split)]
        advice = f"choose with --train: {_listed(others)}" if others else "add images that no test list names"
        raise UserError(
            f"{folder_of_data.root}: no ImageSets/Main/train.txt, trainval.txt or folder train; {advice}"
        )
    val = tuple(name for split in train for name in val_of.get(split, ()))
    return tuple(train), tuple(split for split in val if split not in train)


def choose_evaluation_splits(data: Path | str | DataFolder) -> tuple[str, ...]:
    """Choose the splits to evaluate on: test, else val lists; a UserError tells that there is neither."""
    folder = open_data(data)
    names = folder.list_splits()
    for wanted in (("test",), ("val", "valid")):
        found = tuple(name for name in names if name.rpartition("/")[2] in wanted)
        if found:
            return found
    raise UserError(f"{folder.root}: no test or val list; choose with --split: {_listed(names)}")


def load_samples(
    data: Path | str | DataFolder,
    split: str,
    *,
    unlabelled: str = "skip",
    on_warning: Callable[[str], None] = warn,
) -> list[Sample]:
    """List the images of one split with their annotations, in the order of the list.

    A repeated id counts once. A missing file is no error here: the scan reports it with all the others. In a
    flat folder images without XML are skipped with a warning, unless `unlabelled` is "background": then they,
    and those without XML in other layouts, are images without objects.

    Raises:
        UserError: the split does not exist, or its list is empty, not text, or has an id outside the folder.
    """
    return open_data(data).load(split, unlabelled, on_warning)


def count_files(kind: str, files: Sequence[str]) -> str:
    """Return "2 images in no list" for two files of the kind "image in no list" of `DataFolder.account`."""
    noun, _, reason = kind.partition(" ")
    return f"{plural(len(files), noun)} {reason}"


def exists(path: Path) -> bool:
    """Tell whether a file exists. Without permission to know, assume so: reading it raises the error."""
    try:
        return path.exists()
    except OSError:
        return True


def _no_such_split(place: Path, split: str, names: Sequence[str]) -> str:
    """Return the error message for a missing split; `place` is where it would be."""
    near = difflib.get_close_matches(split, names, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return f"{place}: no split {split!r}{hint}; there are: {_listed(names)}"


def _is_test(split: str) -> bool:
    return split.rpartition("/")[2] == "test"


def _split_of_class_list(name: str) -> str:
    """Return train of cat_train and the like; empty for another name."""
    match = re.search("_(train|val|trainval|test)$", name)
    return match[1] if match else ""


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (" ..." if len(names) > 12 else "")
