"""data.py split: lists of images to train, select and test on, such that no burst stands in two of them."""

from __future__ import annotations

import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from utils.cli.console import one_line, warn
from utils.cli.errors import UserError
from utils.cli.files import atomic_write
from utils.cli.tool_configs import SplitConfig
from utils.data.dataset_report import require_objects
from utils.data.layout import list_splits, voc_folders
from utils.data.near_duplicates import group_near_duplicates
from utils.data.prepare import prepare_splits
from utils.data.sample_report import Record
from utils.data.stratify import count_images, merge_groups, split_with_fallback

_LISTS = ("train", "val", "test", "trainval")
_OFF = 0.25, 2  # share of a class' asked images, and images, that a part may be off before it is said


def run(config: SplitConfig) -> int:
    """Divide the images, write the lists and print what is in them.

    Raises:
        UserError: there are lists already, the data cannot be used, or the lists cannot be written.
    """
    folder = _find_folder(config.data)
    lists = folder / "ImageSets" / "Main"
    if existing := [f"{name}.txt" for name in _LISTS if (lists / f"{name}.txt").exists()]:
        raise UserError(
            f"{lists}: holds {', '.join(existing)} already; nothing is overwritten, move them away"
        )
    records = _read_records(config, folder)
    near = group_near_duplicates([record.image_hash or 0 for record in records])
    named = group_by_name(records, config.group_by) if config.group_by else []
    groups: Sequence[Sequence[int]] = merge_groups(near, named)
    fewer = merge_groups([[place] for place in range(len(records))], named)
    shares = {"train": 1 - config.val - config.test, "val": config.val, "test": config.test}
    shares = {name: share for name, share in shares.items() if share}
    try:
        parts, groups = split_with_fallback(records, groups, fewer, shares, config.seed)
    except UserError as error:
        raise UserError(f"{config.data}: {error}; give --val 0 or --test 0, or more images") from None
    ids = {name: sorted(record.image_id for record in part) for name, part in parts.items()}
    ids["trainval"] = sorted(ids["train"] + ids.get("val", []))
    write_lists(lists, ids)
    lines = [
        _describe_groups(records, groups),
        "",
        *tabulate(parts),
        "",
        *find_imbalance(parts, groups, shares, records),
    ]
    for line in lines:
        print(one_line(line))
    print(one_line(f"written: {', '.join(f'{name}.txt' for name in ids)} in {lists}"))
    print(one_line(f"next: {shlex.join(['python', 'train.py', *config.data_arguments()])}"))
    return 0


def group_by_name(records: Sequence[Record], pattern: str) -> list[list[int]]:
    """Group the places of records by what a regular expression finds in their file names, if anything."""
    groups: dict[str, list[int]] = defaultdict(list)
    for place, record in enumerate(records):
        found = re.search(pattern, record.image_path.name)
        key = found[1 if found.re.groups else 0] if found else None
        if key is not None:
            groups[key].append(place)
    if not groups:
        warn(f"--group-by {pattern}: matches no file name, such as {records[0].image_path.name}")
    return list(groups.values())


def write_lists(folder: Path, ids: Mapping[str, Sequence[str]]) -> None:
    """Write a list for each name, an id a line; after a failure none of them is there.

    Raises:
        UserError: a file cannot be written.
    """
    for line in (line for lines in ids.values() for line in lines):
        if line != line.strip() or len(line.splitlines()) != 1:
            raise UserError(f"{line!r}: a list cannot hold this file name, an id a line; rename the file")
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    try:
        for name, lines in ids.items():
            path = folder / f"{name}.txt"
            with atomic_write(path, "w") as file:
                written.append(path)
                file.writelines(f"{line}\n" for line in lines)
    except BaseException:
        for path in written:
            with suppress(OSError):
                path.unlink()
        raise


def tabulate(parts: Mapping[str, Sequence[Record]]) -> list[str]:
    """Return a table of images and objects of each class in each part."""
    images = {part: count_images(found) for part, found in parts.items()}
    objects = {part: Counter(n for record in found for n in record.names) for part, found in parts.items()}
    names = sorted(set().union(*images.values()))
    width = max(12, *(len(name) for name in names))
    heading = "".join(f"{part:>18}" for part in parts)
    lines = [f"{'':{width}}{heading}", f"{'class':{width}}" + "    images objects" * len(parts)]
    for name in names:
        lines.append(
            f"{name:{width}}" + "".join(f"{images[p][name]:>10}{objects[p][name]:>8}" for p in parts)
        )
    empty = {part: sum(not record.names for record in found) for part, found in parts.items()}
    lines.append(f"{'(no objects)':{width}}" + "".join(f"{empty[part]:>10}{'':>8}" for part in parts))
    totals = "".join(f"{len(found):>10}{objects[part].total():>8}" for part, found in parts.items())
    return [line.rstrip() for line in [*lines, f"{'all':{width}}{totals}"]]


def find_imbalance(
    parts: Mapping[str, Sequence[Record]],
    groups: Sequence[Sequence[int]],
    shares: Mapping[str, float],
    records: Sequence[Record],
) -> list[str]:
    """Name the classes that a part lacks, or of which it has clearly more or less than its share."""
    images = {part: count_images(found) for part, found in parts.items()}
    holders = Counter(name for group in groups for name in {n for i in group for n in records[i].names})
    lines = []
    for name, count in sorted(holders.items()):
        total = sum(found[name] for found in images.values())
        if count == 1:
            lines.append(f"{name}: its {total} image(s) belong together, so all are in train")
            continue
        for part, found in images.items():
            asked, off = shares[part] * total, abs(found[name] - shares[part] * total)
            if not found[name] or (part != "train" and off > max(_OFF[0] * asked, _OFF[1])):
                lines.append(
                    f"{name}: {part} has {found[name]} of its {total} images, {shares[part]:.0%} are "
                    f"{asked:.1f}; {count} groups of images that belong together show it"
                )
    return [f"not balanced: {line}" for line in lines] or ["every class has its share in every part"]


def _find_folder(data: str) -> Path:
    list_splits(data)  # says what is wrong with a folder in no layout
    folders = voc_folders(data)
    if not folders:
        raise UserError(
            f"{data}: images with XML beside them have no lists; sort them into folders "
            "train/, valid/ and test/, or put the images into JPEGImages/ and the XML into Annotations/"
        )
    if len(folders) > 1:
        named = " or ".join(f"--data {shlex.quote(str(folder))}" for folder in folders[:2])
        raise UserError(f"{data}: holds {len(folders)} folders in VOC layout; split one at a time: {named}")
    return folders[0]


def _read_records(config: SplitConfig, folder: Path) -> list[Record]:
    """Read what is in the folder, listed or not, by the strict rule of what one measures on."""
    _, report = prepare_splits(folder, ["all"], training=False, hashes=True, **config.reading())
    require_objects(report)
    return report.records


def _describe_groups(records: Sequence[Record], groups: Sequence[Sequence[int]]) -> str:
    several = [group for group in groups if len(group) > 1]
    together = f"{sum(map(len, several))} of them in {len(several)} groups that stay together"
    return f"{len(records)} images, {together if several else 'none of which belong together'}"
