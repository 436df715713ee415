"""data.py check: everything that is wrong with the data, before it costs a night."""

from __future__ import annotations

import csv
import json
import shlex
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from utils.cli.class_names import parse_renames
from utils.cli.console import log, one_line
from utils.cli.errors import UserError
from utils.cli.files import atomic_write
from utils.cli.shared_config import DataConfig
from utils.cli.tool_configs import CheckConfig
from utils.data.dataset_report import MAX_SHOWN
from utils.data.sample_report import Finding
from utils.tools.survey import Survey, survey

_COLUMNS = ("level", "kind", "splits", "file", "object", "class", "reason")


def run(config: CheckConfig) -> int:
    """Check the data and print the report.

    Returns:
        0: there is no error, or --skip-bad passes over all of them.

    Raises:
        UserError: there are errors; the first is told once more, below all that was found.
    """
    found = survey(
        config.data,
        splits=config.split,
        classes=config.classes,
        anchors=config.anchors,
        renames=config.renames,
        unlabelled=config.unlabelled,
        decode=config.decode,
    )
    following = _next_command(config, found)
    if config.json:
        with atomic_write(config.json, "w") as file:
            json.dump(_as_dict(config, found, following), file, indent=1, ensure_ascii=False)
            file.write("\n")
    if config.csv:
        _write_csv(config.csv, found)
    for line in [*_counts(found), *_findings(found)]:
        print(one_line(line))
    errors, warnings, notes = (found.count(level) for level in ("error", "warning", "note"))
    print(f"errors: {errors}, warnings: {warnings}, notes: {notes}")
    print(one_line(following), flush=True)  # an error line comes below it, in a log of both streams too
    if not errors:
        return 0
    if config.skip_bad and found.can_be_skipped:
        log("the errors are left out with --skip-bad")
        return 0
    more = f" (and {errors - 1} more, see above)" if errors > 1 else ""
    advice = "mend the data or add --skip-bad" if found.can_be_skipped else "mend the data"
    raise UserError(f"{found.findings[0]}{more}; {advice}")


def _counts(found: Survey) -> Iterator[str]:
    """Yield the two tables: a line a split, and a line a class with a column a split."""
    splits = list(found.splits)
    width = max(5, *(len(split) for split in splits), 0)
    yield f"{'split':<{width}}  images  usable  background  objects  difficult"
    for split, summary in found.splits.items():
        objects = sum(summary.objects.values())
        yield (
            f"{split:<{width}}  {summary.images:>6}  {summary.usable:>6}  {summary.background:>10}"
            f"  {objects:>7}  {summary.difficult:>9}"
        )
    names = sorted({name for summary in found.splits.values() for name in summary.objects})
    if not names:
        return
    width = max(5, *(len(name) for name in names))
    widths = [max(6, len(split)) for split in splits]
    yield ""
    yield f"{'class':<{width}}  " + "  ".join(f"{s:>{w}}" for s, w in zip(splits, widths, strict=True))
    for name in names:
        counts = [found.splits[split].objects[name] for split in splits]
        yield f"{name:<{width}}  " + "  ".join(f"{c:>{w}}" for c, w in zip(counts, widths, strict=True))


def _findings(found: Survey) -> Iterator[str]:
    """Yield the findings by level and kind, at most ten of a kind."""
    kinds: dict[tuple[str, str], list[Finding]] = defaultdict(list)
    for finding in found.findings:
        kinds[finding.level, finding.kind].append(finding)
    for (level, kind), findings in kinds.items():
        yield ""
        yield f"{kind} ({level}): {len(findings)}"
        yield from (f"  {finding}" for finding in findings[:MAX_SHOWN])
        if len(findings) > MAX_SHOWN:
            yield f"  … and {len(findings) - MAX_SHOWN} more; --csv FILE lists all"
    yield ""


def _next_command(config: CheckConfig, found: Survey) -> str:
    """Say what goes on from here."""
    merged = parse_renames(found.renames)
    renames = {old: merged.get(new, new) for old, new in config.renames.items()} | merged
    if not found.can_be_skipped:
        words = config.data_arguments()
        return f"mend the lists and files above, then: {shlex.join(['python', 'data.py', 'check', *words])}"
    changed = DataConfig(
        data=config.data,
        classes=config.classes,
        rename=tuple(f"{old}={new}" for old, new in renames.items()) or None,
        unlabelled=config.unlabelled,
        skip_bad=found.count("error") > 0,
    )
    return f"next: {shlex.join(['python', 'train.py', *changed.data_arguments()])}"


def _as_dict(config: CheckConfig, found: Survey, following: str) -> dict[str, Any]:
    splits = {
        split: {
            "images": summary.images,
            "usable": summary.usable,
            "background": summary.background,
            "difficult": summary.difficult,
            "objects": dict(sorted(summary.objects.items())),
        }
        for split, summary in found.splits.items()
    }
    return {
        "data": config.data,
        "splits": splits,
        **{f"{level}s": found.count(level) for level in ("error", "warning", "note")},
        "findings": [dict(zip(_COLUMNS, row, strict=True)) for row in _rows(found)],
        "next": following,
    }


def _write_csv(path: str, found: Survey) -> None:
    with atomic_write(path, "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for level, kind, splits, *rest in _rows(found):
            writer.writerow([level, kind, " ".join(splits), *("" if cell is None else cell for cell in rest)])


def _rows(found: Survey) -> Iterator[tuple[str, str, list[str], str, int | None, str | None, str]]:
    for finding in found.findings:
        yield (
            finding.level,
            finding.kind,
            found.splits_of.get(finding.image_id, []),
            str(finding.file),
            finding.number or None,
            finding.name or None,
            finding.reason,
        )
