"""Layouts of a data folder: which files are the images, the annotations and the split lists.

The first layout that fits is taken:

1. a VOC folder: JPEGImages/ and Annotations/; a split is a list in ImageSets/Main, else a subfolder train/,
   val/ or test/ of the images, else `all`;
2. a VOCdevkit: a folder of VOC folders; a split is `VOC2007/trainval`;
3. a flat folder: images with XML beside them, at any depth; a split is a folder train/, valid/ or test/, and
   the training part has the images beside such folders too; else `all`;
4. as 1 and 2, with other names or deeper: images/ and annotations/xmls/; a split of train/images/ is `train`;
5. the only folder with XML, and the only other one with images or all images beside it, if names match.

Without lists in ImageSets, a train.txt, val.txt or test.txt that lies on top counts if it names the images.
If there is only a test list, the other images are the training part.

The id of an image is its path below the folder of images, without suffix. Its annotation has the same path.
"""

from __future__ import annotations

import re
import shlex
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path, PurePosixPath

from utils.cli.console import plural
from utils.cli.errors import UserError
from utils.cli.files import nfc, read_text
from utils.data.folder_walk import IMAGE_SUFFIXES, VIDEO_SUFFIXES, FolderWalk, is_image

EVERYTHING = "all"
_IMAGE_FOLDERS = ("jpegimages", "images", "image", "imgs", "img")  # in any case; the first one found counts
_XML_FOLDERS = ("annotations", "annotation", "annots", "xmls", "xml", "labels")
SPLIT_NAMES = {name: name for name in ("train", "trainval", "val", "valid", "test")}
SPLIT_NAMES |= {"training": "train", "validation": "val", "testing": "test"}
_SPLIT_FOLDER = re.compile(r"(?:obj_)?([a-z]+?)[\W_]*(?:images?|imgs?|set|data)?\d*")
_SUFFIX = "|".join(map(re.escape, IMAGE_SUFFIXES))
_COLUMNS = re.compile(  # a line of a list with a second column
    rf"""(.*\S)\s+(?:-1|0|1)|(.*(?:{_SUFFIX})["']?)\s+.*\.xml["']?""", re.IGNORECASE
)
_LIST_FOLDERS = ("", "imagesets", "imagesets/main")  # in any case; the last one counts
_DESCRIBED = {
    "image": IMAGE_SUFFIXES,
    "XML file": (".xml",),
    "JSON file": (".json",),
    "TXT file": (".txt",),
    "CSV file": (".csv",),
    "video": VIDEO_SUFFIXES,
    "archive": (".zip", ".tar", ".tar.gz", ".tgz", ".rar", ".7z"),
}
_MAX_DEPTH = 4  # levels of folders that are searched for VOC folders, with the data folder


@dataclass(frozen=True)
class DataPart:
    """A VOC folder, or all of a flat folder; ids lack the prefix, files are relative to the data folder."""

    prefix: str  # of its ids and splits, "" or "VOC2007/"; also the folder
    image_folder: str  # what is searched, with a slash at the end
    xml_folder: str  # the same one in a flat folder
    images: dict[str, list[str]]  # the files of each id; more than one is an error
    xml: dict[str, str]  # the annotation of each id that has one
    second_xml: list[str]  # XML files of images that have another one
    xml_without_image: list[str]
    lists: dict[str, str]  # the list of each split, by its own name
    groups: dict[str, list[str]]  # the ids of each split, if not all splits have a list of their own
    names: ListedNames  # the ids that lists name

    @property
    def is_flat(self) -> bool:
        """Whether images and XML are in the same folders."""
        return self.image_folder == self.xml_folder

    def list_splits(self) -> Iterator[tuple[str, str]]:
        """Yield the full and the own name of each split."""
        for name in sorted(self.groups or self.lists):
            own_folder = split_of(self.prefix) if name == EVERYTHING else ""
            yield own_folder or self.prefix + name, name

    def origin_of(self, name: str) -> str:
        """Return the list of a split, or its folder with a slash; "" if it is what no other split has."""
        for own, file in self.lists.items():
            if own == name or (self.groups and own.endswith(f"_{name}")):  # of one class, joined
                return file
        if name == EVERYTHING:
            return self.prefix if split_of(self.prefix) else ""
        folders = (self.image_folder + split_folder(image_id) for image_id in self.groups[name])
        return next((folder for folder in folders if folder != self.image_folder), "")


class ListedNames:
    """The ids of a part by what lists write: file names, paths of another machine, another case."""

    def __init__(self, ids: Collection[str], folders: Iterable[str]) -> None:
        self._ids = ids
        self._folders = {image_id.partition("/")[0].casefold() for image_id in self._ids if "/" in image_id}
        own = {PurePosixPath(folder).name.casefold() for folder in folders}
        self._data_folders = {*_IMAGE_FOLDERS, *_XML_FOLDERS, *own}

    @cached_property
    def _by_case(self) -> dict[str, list[str]]:
        return _group(self._ids, str.casefold)

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        return _group(self._ids, lambda image_id: _last_name(image_id).casefold())

    def fits(self, path: Path) -> bool:
        """Tell whether most lines of a file name an image."""
        lines, found = {}, 0
        with suppress(UserError):
            lines = read_lines(path)
        for line in lines.values():
            with suppress(ValueError):
                found += self.resolve(line) in self._ids
        return 2 * found > len(lines)

    def resolve(self, line: str) -> str:
        """Return the id in a line of a list; if there is no such image, what the id should be.

        The line may be quoted, and have a second column: 1, 0 or -1, or the annotation. A suffix is left out.
        Of a path counts what follows the folder of images or XML, or a folder that no image is in. Of an
        absolute path, and of a name that is not found, the name decides if only one image has it.

        Raises:
            ValueError: the line leads out of the data folder.
        """
        if (text := nfc(line)) in self._ids or (text := nfc(line.strip("\"'"))) in self._ids:
            return text
        if columns := _COLUMNS.fullmatch(line):
            text = nfc((columns[1] or columns[2]).strip("\"'"))
        path = PurePosixPath(text.replace("\\", "/"))
        if ".." in path.parts:
            raise ValueError(repr(line[:80]))
        is_absolute = path.is_absolute() or path.as_posix()[1:2] == ":"
        starts = [n + 1 for n, name in enumerate(path.parts[:-1]) if name.casefold() in self._data_folders]
        parts = path.parts[max(starts, default=0) :]
        known = (n for n, name in enumerate(parts[:-1]) if name.casefold() in self._folders)
        below, tail = "/".join(parts), "/".join(parts[next(known, len(parts) - 1) :])
        for key in (path.as_posix(), below, tail):
            for form in (key, _without_suffix(key)):
                if form in self._ids:
                    return form
        nearest = [self._by_case.get(_without_suffix(key).casefold(), []) for key in (below, tail)]
        if is_absolute or "/" not in below:
            nearest.append(self._by_name.get(_without_suffix(path.name).casefold(), []))
        for found in nearest:
            if len(found) == 1:
                return found[0]
        if is_absolute:
            raise ValueError(repr(line[:80]))
        return _without_suffix(below)


def find_parts(walk: FolderWalk) -> list[DataPart]:
    """Divide a data folder by the first layout that fits; the last, a flat folder, fits any."""
    levels = [[""]]
    while len(levels) < _MAX_DEPTH:
        levels.append([f"{above}{name}/" for above in levels[-1] for name in walk.subfolders.get(above, ())])
    for level in levels[:2]:
        if parts := _find_named(walk, level, _find_voc_folders):
            return parts
    flat = _make_part(walk, "", "", "")
    if any(_key(file, "") == image_id for image_id, file in flat.xml.items()):  # XML beside an image
        return [flat]
    for level in levels:
        if parts := _find_named(walk, level, _find_similar_folders):
            return parts
    for level in levels:
        parts = _find_named(walk, level, _find_only_folders)
        if sum(len(part.xml) for part in parts) > len(flat.xml):
            return parts
    return [flat]


def _find_named(
    walk: FolderWalk, level: Sequence[str], find: Callable[[FolderWalk, str], tuple[str, str] | None]
) -> list[DataPart]:
    """Return the parts among folders in which `find` finds a folder of images and one of XML."""
    return [_make_part(walk, folder, *found) for folder in level if (found := find(walk, folder))]


def _find_voc_folders(walk: FolderWalk, folder: str) -> tuple[str, str] | None:
    has_both = {"JPEGImages", "Annotations"} <= set(walk.subfolders.get(folder, ()))
    return (f"{folder}JPEGImages/", f"{folder}Annotations/") if has_both else None


def _find_similar_folders(walk: FolderWalk, folder: str) -> tuple[str, str] | None:
    names = {name.casefold(): f"{folder}{name}/" for name in walk.subfolders.get(folder, ())}
    images = [names[name] for name in _IMAGE_FOLDERS if name in names]
    xml = [names[name] for name in _XML_FOLDERS if name in names]
    filled = [place for place in images if any(map(is_image, walk.below(place)))][:1]
    filled += [place for place in xml if any(map(_is_xml, walk.below(place)))][:1]
    return (filled[0], filled[1]) if len(filled) == 2 else None


def _find_only_folders(walk: FolderWalk, folder: str) -> tuple[str, str] | None:
    """Find one subfolder with XML, and one other with images, else all images beside it."""
    places = [f"{folder}{name}/" for name in walk.subfolders.get(folder, ())]
    xml = [place for place in places if any(map(_is_xml, walk.below(place)))]
    images = [place for place in places if any(map(is_image, walk.below(place)))]
    beside = any("/" not in file[len(folder) :] and is_image(file) for file in walk.below(folder))
    if len(xml) != 1 or xml[0] in images or not (images or beside):
        return None
    return images[0] if len(images) == 1 and not beside else folder, xml[0]


def _make_part(walk: FolderWalk, prefix: str, image_folder: str, xml_folder: str) -> DataPart:
    """Match the images of a VOC folder, or of a flat one, with their annotations, and find its splits."""
    images = _group(filter(is_image, walk.below(image_folder)), lambda file: _key(file, image_folder))
    files = sorted(filter(_is_xml, walk.below(xml_folder)), key=lambda file: not file.endswith(".xml"))
    is_flat = image_folder == xml_folder
    xml, unmatched = _match(images, {file: _key(file, xml_folder) for file in files}, is_flat=is_flat)
    annotated = set(map(_simplify, xml)) if unmatched else set()
    second = [file for file in unmatched if _simplify(_key(file, xml_folder)) in annotated]
    alone = [file for file in unmatched if file not in set(second)]
    names = ListedNames(images, (image_folder, xml_folder))
    lists = _find_lists(walk, prefix, names)
    groups = {} if lists else group_by_folder(sorted(images))
    return DataPart(prefix, image_folder, xml_folder, images, xml, second, alone, lists, groups, names)


def _match(
    images: Iterable[str], key_of: Mapping[str, str], *, is_flat: bool
) -> tuple[dict[str, str], list[str]]:
    """Return the XML file of each image id, and the XML files without an image.

    Both have the same path. Where there is none, a path that is nearly the same counts if it is that of one
    image and one file: without folders such as xmls/ on the way, a.jpg.xml, another case, and XML in one
    folder for images in subfolders.
    """
    simplifications: list[Callable[[str], str]] = [str, _without_folders, _without_suffix, str.casefold]
    if not is_flat and not any("/" in _without_folders(key) for key in key_of.values()):
        simplifications.append(_last_name)
    found: dict[str, str] = {}
    ids, keys = {image_id: image_id for image_id in images}, dict(key_of)
    for simplify in simplifications:
        ids, keys = ({name: simplify(text) for name, text in texts.items()} for texts in (ids, keys))
        candidates = _group(keys, keys.__getitem__)
        exact = simplify is str  # ids differ, and of two files the first one counts
        for text, names in _group(ids, ids.__getitem__).items():
            files = candidates.get(text, [])
            if files and (exact or len(names) == len(files) == 1):
                found[names[0]] = files[0]
                del ids[names[0]], keys[files[0]]
    return found, list(keys)


def _find_lists(walk: FolderWalk, prefix: str, names: ListedNames) -> dict[str, str]:
    """Return the lists in ImageSets/Main, or ImageSets itself, by the names of their splits.

    If there are none, train.txt and the like on top count, where they name images.
    """
    found: dict[str, dict[str, str]] = {folder: {} for folder in _LIST_FOLDERS}
    for file in walk.below(prefix):
        if file.lower().endswith(".txt"):
            folder, _, name = file[len(prefix) :].rpartition("/")
            found.get(folder.casefold(), {}).setdefault(name[:-4], file)
    on_top = found.pop("")
    lists = {stem: file for files in found.values() for stem, file in files.items()}
    if not lists:
        on_top = {stem: file for stem, file in on_top.items() if stem.casefold() in SPLIT_NAMES}
        lists = {stem: file for stem, file in on_top.items() if names.fits(walk.root / file)}
    for stem in list(lists):
        if (plain := SPLIT_NAMES.get(stem.casefold(), stem)) not in lists:
            lists[plain] = lists.pop(stem)
    return lists


def group_by_folder(ids: Sequence[str]) -> dict[str, list[str]]:
    """Divide ids by the folder train/, val/ or test/ they are in; `all` if there is none.

    Without a training folder all else is the training part, with one only what lies beside it.
    """
    groups = _group(ids, split_of)
    rest = groups.pop("", [])
    if not groups:
        return {EVERYTHING: rest}
    home = next((name for name in ("train", "trainval") if name in groups), "")
    rest = [image_id for image_id in rest if not home or "/" not in image_id]
    if rest:
        groups[home or "train"] = sorted([*groups.get(home, []), *rest])
    return groups


def split_of(path: str) -> str:
    """Return the split of the first folder in a path called train, Validation, test_images or so, else ""."""
    return _split_word(_last_name(split_folder(path)[:-1]))


def split_folder(path: str) -> str:
    """Return the path, with a slash, of the folder that decides the split; "" if there is none."""
    folders = path.split("/")[:-1]
    depths = (depth for depth, folder in enumerate(folders, start=1) if _split_word(folder))
    return "".join(f"{folder}/" for folder in folders[: next(depths, 0)])


@cache
def _split_word(folder: str) -> str:
    match = _SPLIT_FOLDER.fullmatch(folder.casefold())
    return SPLIT_NAMES.get(match[1], "") if match else ""


def read_lines(path: Path) -> dict[int, str]:
    """Read the lines of a list that are not blank, by number from 1; raises a UserError as `read_text`."""
    lines = enumerate(map(str.strip, read_text(path).splitlines()), start=1)
    return {number: line for number, line in lines if line}


def _key(file: str, folder: str) -> str:
    """Return the path of a file below a folder without suffix, in NFC."""
    return nfc(file[len(folder) :].rpartition(".")[0])


def _is_xml(file: str) -> bool:
    return file.lower().endswith(".xml")


def _last_name(path: str) -> str:
    return path.rpartition("/")[2]


def _without_suffix(path: str) -> str:
    return path.rpartition(".")[0] if path.lower().endswith((*IMAGE_SUFFIXES, ".xml")) else path


def _simplify(key: str) -> str:
    """Return what the path of an image and those of all files that may be its annotation have in common."""
    return _without_suffix(_without_folders(key)).casefold()


def _without_folders(path: str) -> str:
    """Leave folders such as images/ and xmls/ out of a path."""
    *folders, name = path.split("/")
    return "/".join([*(f for f in folders if f.casefold() not in _IMAGE_FOLDERS + _XML_FOLDERS), name])


def _group(items: Iterable[str], key: Callable[[str], str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return dict(groups)


def describe_contents(walk: FolderWalk) -> str:
    """Say what a folder without annotated images has, and what to do; empty if it has nothing of the kind."""
    found = {noun: [f for f in walk.files if f.lower().endswith(ends)] for noun, ends in _DESCRIBED.items()}
    counts = ", ".join(
        f"{plural(len(files), noun)} ({files[0][-60:]}{', ...' if len(files) > 1 else ''})"
        for noun, files in found.items()
        if files
    )
    folder = shlex.quote(str(walk.root))
    if not found["image"]:
        advice = ""
        if found["XML file"] or found["JSON file"] or found["CSV file"]:
            advice = "give the folder that has both"
        if found["video"]:
            advice = "extract frames and annotate them, or run predict.py on the videos"
        if found["archive"]:
            advice = "unpack the archives"
        return f"{counts} and no images; {advice}" if advice else ""
    if found["XML file"]:
        return f"{counts}, but {_describe_names(found['image'], found['XML file'])}"
    unnamed = [f for f in walk.files if "." not in _last_name(f) and _has_voc_xml(walk.root / f)]
    if unnamed:
        files = (
            f"{plural(len(unnamed), 'file')} without suffix that {'is' if len(unnamed) == 1 else 'are'} XML"
        )
        return f"{counts}, {files} ({unnamed[0][-60:]}); add .xml to the name, as in x.xml for x.jpg"
    if found["JSON file"] or found["TXT file"]:
        convert = f"python data.py convert {folder} --out {folder}_voc"
        return (
            f"{counts} and no XML; convert COCO, YOLO and labelme: {convert}; export any other format as VOC"
        )
    if found["CSV file"]:
        return f"{counts} and no XML; CSV is not read: export the annotations as VOC, COCO or YOLO"
    if found["archive"]:
        return f"{counts} and no XML; unpack the archives"
    return f"{counts} and no XML; annotate them first (predict.py --xml DIR suggests boxes)"


def _has_voc_xml(path: Path) -> bool:
    with suppress(OSError), path.open("rb") as file:
        return b"<annotation" in file.read(300)
    return False


def _describe_names(images: Iterable[str], xml: Iterable[str]) -> str:
    """Say why no XML file is the annotation of an image."""
    images_of = _group(images, _plain_name)
    for file in xml:
        if near := [image[-60:] for image in images_of.get(_plain_name(file), [])]:
            return (
                f"{file[-60:]} cannot be matched with {' or '.join(near[:2])}; move the images below images/ "
                "and the XML below annotations/, with the same subfolders and no name twice"
            )
    return "no XML file has the name of an image; name them alike, such as x.jpg and x.xml"


def _plain_name(file: str) -> str:
    return _without_suffix(_without_suffix(_last_name(file))).casefold()
