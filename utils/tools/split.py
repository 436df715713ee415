"""data.py split: stratified train, val and test lists that keep near-duplicates together."""

from __future__ import annotations

import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from utils.cli.console import plural, warn
from utils.cli.errors import UserError
from utils.cli.files import atomic_write
from utils.cli.tool_configs import SplitConfig
from utils.data.dataset_report import Record, require_objects
from utils.data.prepare import prepare_splits
from utils.data.samples import DataFolder, load_samples
from utils.data.stratify import count_images, group_near_duplicates, merge_groups, split_with_fallback
from utils.tools.printing import next_command, print_lines, text_table

# A part is reported if it is off by more than this fraction of its target, and more than this many images.
_TOLERANCE = 0.25, 2


def run(config: SplitConfig) -> int:
    """Divide the images, write the lists and print what is in them.

    Raises:
        UserError: the images are divided already, the data cannot be used, or the lists cannot be written.
    """
    data = DataFolder(_find_folder(config.data))
    test = data.find_divided().get("test", "")
    kept = (
        {sample.image_id for sample in load_samples(data, "test", unlabelled=config.unlabelled)}
        if test
        else set()
    )
    # All images are read, listed or not, by the strict rule of evaluation data.
    _, report = prepare_splits(replace(config, data=str(data.root)), ["all"], training=False, hashes=True)
    require_objects(report)
    records = [record for record in report.records if record.image_id not in kept]
    named = group_by_name(records, config.group_by) if config.group_by else []
    near = merge_groups(group_near_duplicates([record.image_hash or 0 for record in records]), named)
    loose = merge_groups([[place] for place in range(len(records))], named)
    shares = {"val": config.val, "test": 0 if test else config.test}
    shares = {"train": 1 - sum(shares.values())} | {name: share for name, share in shares.items() if share}
    if not records or len(shares) == 1:
        raise UserError(f"{data.root / test}: is the test part already; nothing is left to split")
    try:
        parts, groups = split_with_fallback(records, near, loose, shares, config.seed)
    except UserError as error:
        raise UserError(f"{config.data}: {error}; set --val 0 or --test 0, or add images") from None
    ids = {name: sorted(record.image_id for record in part) for name, part in parts.items()}
    ids["trainval"] = sorted(ids["train"] + ids.get("val", []))
    lists = data.root / "ImageSets" / "Main"
    if test.lower().endswith(".txt"):
        lists = (data.root / test).parent
    elif test:
        ids["test"] = sorted(kept)
    write_lists(lists, ids)
    several = [group for group in groups if len(group) > 1]
    grouped = f"{sum(map(len, several))} of them in {plural(len(several), 'group')} that stay together"
    lines = [f"{plural(len(records), 'image')}, {grouped if several else 'each a group of its own'}", ""]
    if test:
        lines.insert(
            1, f"test: keeps the {plural(len(kept), 'image')} of {data.root / test}; the others are divided"
        )
    lines += [*tabulate(parts), "", *find_imbalance(parts, groups, shares, records)]
    lines.append(f"written: {', '.join(f'{name}.txt' for name in ids)} in {lists}")
    print_lines([*lines, next_command("train.py", *config.data_arguments())])
    return 0


def _find_folder(data: str) -> Path:
    """Return the folder to divide: it has no train, val or test part yet, or a test part alone."""
    folder = DataFolder(data)
    divided, folders = folder.find_divided(), folder.list_folders()
    whole = [
        path for path in folders if not any((folder.root / o).is_relative_to(path) for o in divided.values())
    ]
    if whole and len(folders) > 1:
        named = " or ".join(shlex.join(["--data", str(path)]) for path in whole[:2])
        raise UserError(f"{data}: has {len(folders)} folders in VOC layout; split one at a time: {named}")
    if len(folders) > 1 or divided.keys() - {"test"}:
        raise UserError(
            f"{data}: is split already ({', '.join(sorted(divided.values()))}); to split anew, move or "
            "delete such lists and join such folders"
        )
    return folders[0]


def group_by_name(records: Sequence[Record], pattern: str) -> list[list[int]]:
    """Group the indices of records by the match of a regular expression in their file names."""
    groups: dict[str, list[int]] = defaultdict(list)
    for index, record in enumerate(records):
        found = re.search(pattern, record.image_path.name)
        key = found[1 if found.re.groups else 0] if found else None
        if key is not None:
            groups[key].append(index)
    if not groups:
        warn(f"--group-by {pattern}: matches no file name, such as {records[0].image_path.name}")
    return list(groups.values())


def write_lists(folder: Path, ids: Mapping[str, Sequence[str]]) -> None:
    """Write a list for each name, one id a line; after a failure none of them is there.

    Raises:
        UserError: a file cannot be written.
    """
    for line in (line for lines in ids.values() for line in lines):
        if line != line.strip() or len(line.splitlines()) != 1:
            raise UserError(f"{line!r}: a list cannot hold this file name; rename the file")
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
    """Return a table of the images and objects of each class in each part."""
    images = [count_images(found) for found in parts.values()]
    objects = [Counter(name for record in found for name in record.names) for found in parts.values()]
    names = sorted(set().union(*images))
    rows: list[list[object]] = [["class"]]
    rows += [[name] for name in [*names, "(no objects)", "all"]]
    for part, found, per_image, per_object in zip(parts, parts.values(), images, objects, strict=True):
        rows[0] += [f"{part} images", "objects"]
        for row in rows[1:-2]:
            row += [per_image[str(row[0])], per_object[str(row[0])]]
        rows[-2] += [sum(not record.names for record in found), ""]
        rows[-1] += [len(found), per_object.total()]
    return text_table(rows)


def find_imbalance(
    parts: Mapping[str, Sequence[Record]],
    groups: Sequence[Sequence[int]],
    shares: Mapping[str, float],
    records: Sequence[Record],
) -> list[str]:
    """Name the classes that a part lacks, or of which it has clearly more or less than its share."""
    images = {part: count_images(found) for part, found in parts.items()}
    holders = Counter(name for group in groups for name in {n for i in group for n in records[i].names})

    def unbalanced() -> Iterator[str]:
        for name, count in sorted(holders.items()):
            total = sum(found[name] for found in images.values())
            if count == 1:
                alone = "its only image is" if total == 1 else f"all its {total} images stay together,"
                yield f"{name}: {alone} in train"
                continue
            for part, found in images.items():
                target, off = shares[part] * total, abs(found[name] - shares[part] * total)
                kept = f"; they stay together in {count} groups" if count < total else ""
                if not found[name] or (part != "train" and off > max(_TOLERANCE[0] * target, _TOLERANCE[1])):
                    yield (
                        f"{name}: {part} has {found[name]} of {total} images, its target is "
                        f"{target:.1f}{kept}"
                    )

    return [f"not balanced: {line}" for line in unbalanced()] or ["every class is balanced in every part"]
