"""data.py check: every fault in a data set, found before training."""

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
from utils.tools.check_report import LEVELS, CheckReport, build_check_report
from utils.tools.text_table import text_table


def run(config: CheckConfig) -> int:
    """Check the data and print the report.

    Returns:
        0: there is no error, or --skip-bad skips all of them.

    Raises:
        UserError: there are errors; repeats the first below the report.
    """
    report = build_check_report(
        config.data,
        splits=config.split,
        classes=config.classes,
        anchors=config.anchors,
        renames=config.renames,
        unlabelled=config.unlabelled,
        decode=config.decode,
    )
    following = _next_command(config, report)
    counts = {f"{level}s": report.count(level) for level in LEVELS}
    if config.json or config.csv:
        _write_report(config, report, counts, following)
    for line in [*_count_lines(report), *_finding_lines(report)]:
        print(one_line(line))
    print(", ".join(f"{level}: {count}" for level, count in counts.items()))
    print(one_line(following), flush=True)  # before the error line, also in a log of both streams
    errors = counts["errors"]
    if not errors:
        return 0
    if config.skip_bad and report.can_be_skipped:
        log("the errors are skipped with --skip-bad")
        return 0
    more = f" (and {errors - 1} more, see above)" if errors > 1 else ""
    advice = "fix the data or add --skip-bad" if report.can_be_skipped else "fix the data"
    raise UserError(f"{report.findings[0]}{more}; {advice}")


def _count_lines(report: CheckReport) -> list[str]:
    """Return two tables: a row per split, and a row per class with a column per split."""
    splits = list(report.splits.items())
    rows: list[list[object]] = [["split", "images", "usable", "background", "objects", "difficult"]]
    for name, split in splits:
        counts = [split.images, split.usable, split.background, split.objects.total(), split.difficult]
        rows.append([name, *counts])
    names = sorted({name for _, split in splits for name in split.objects})
    classes: list[list[object]] = [["class", *report.splits]]
    classes += [[name, *(split.objects[name] for _, split in splits)] for name in names]
    return [*text_table(rows), *(["", *text_table(classes)] if names else [])]


def _finding_lines(report: CheckReport) -> Iterator[str]:
    """Yield the findings by level and kind, at most MAX_SHOWN of a kind."""
    kinds: dict[tuple[str, str], list[Finding]] = defaultdict(list)
    for finding in report.findings:
        kinds[finding.level, finding.kind].append(finding)
    for (level, kind), findings in kinds.items():
        yield ""
        yield f"{kind} ({level}): {len(findings)}"
        yield from (f"  {finding}" for finding in findings[:MAX_SHOWN])
        if len(findings) > MAX_SHOWN:
            yield f"  … and {len(findings) - MAX_SHOWN} more; --csv FILE lists all"
    yield ""


def _next_command(config: CheckConfig, report: CheckReport) -> str:
    if not report.can_be_skipped:
        command = shlex.join(["python", "data.py", "check", *config.data_arguments()])
        return f"fix the lists and files above, then: {command}"
    merged = parse_renames(report.renames)
    renames = {old: merged.get(new, new) for old, new in config.renames.items()} | merged
    changed = DataConfig(
        data=config.data,
        classes=config.classes,
        rename=tuple(f"{old}={new}" for old, new in renames.items()) or None,
        unlabelled=config.unlabelled,
        skip_bad=report.count("error") > 0,
    )
    return f"next: {shlex.join(['python', 'train.py', *changed.data_arguments()])}"


def _write_report(config: CheckConfig, report: CheckReport, counts: dict[str, int], following: str) -> None:
    rows: list[dict[str, Any]] = [
        {
            "level": finding.level,
            "kind": finding.kind,
            "splits": report.splits_of.get(finding.image_id, []),
            "file": str(finding.file),
            "object": finding.number or None,
            "class": finding.name or None,
            "reason": finding.reason,
        }
        for finding in report.findings
    ]
    if config.json:
        splits = {
            name: {**vars(split), "objects": dict(sorted(split.objects.items()))}
            for name, split in report.splits.items()
        }
        content = {"data": config.data, "splits": splits, **counts, "findings": rows, "next": following}
        with atomic_write(config.json, "w") as file:
            json.dump(content, file, indent=1, ensure_ascii=False)
            file.write("\n")
    if config.csv:
        columns = ("level", "kind", "splits", "file", "object", "class", "reason")
        with atomic_write(config.csv, "w") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows({**row, "splits": " ".join(row["splits"])} for row in rows)
