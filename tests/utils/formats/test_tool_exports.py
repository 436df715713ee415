from __future__ import annotations

from pathlib import Path

import pytest

import train
from tests.training_room import QUICK, last_of
from tests.utils.formats.tool_exports import OBJECTS, TOOL_EXPORTS
from tests.utils.tools.conversion import boxes_of, lists_of, refusal, run_convert
from utils.data.dataset_report import scan_samples
from utils.data.samples import DataFolder, choose_training_splits, load_samples
from utils.tools.convert import detect_format

TRAINED = ("cvat_voc", "roboflow_voc")  # one without a split, one with
VOC = [name for name, tool in TOOL_EXPORTS.items() if tool.format == "voc"]


def test_a_folder_of_no_tool(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    assert "not recognized as any of" in refusal(capsys, tmp_path / "in", "--out", tmp_path / "out")


def test_every_row_of_the_documentation_is_tried() -> None:
    text = (Path(__file__).parents[3] / "docs" / "data.md").read_text(encoding="utf-8")
    section = text.partition("## Data from a labeling tool")[2].partition("\n## ")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in section.splitlines()
        if line[:1] == "|"
    ][2:]  # without the heading
    cells = {(row[0], column): row[column] for row in rows for column in (1, 2) if row[column]}
    tried = set()
    for tool in TOOL_EXPORTS.values():
        place = tool.row[0], 1 if tool.format == "voc" else 2
        assert tool.row[1] in cells[place], tool.row
        tried.add(place)
    assert tried == cells.keys()


@pytest.mark.parametrize("name", TOOL_EXPORTS)
def test_format_is_recognized(tmp_path: Path, name: str) -> None:
    TOOL_EXPORTS[name].make(tmp_path)
    assert detect_format([tmp_path]) == TOOL_EXPORTS[name].format


@pytest.mark.parametrize("name", [name for name in TOOL_EXPORTS if name not in VOC])
def test_export_becomes_voc(tmp_path: Path, name: str) -> None:
    TOOL_EXPORTS[name].make(tmp_path / "in")
    assert run_convert(tmp_path / "in", "--out", tmp_path / "out") == 0
    found = boxes_of(tmp_path / "out")
    assert {key: found[key] for key in OBJECTS} == {key: [item] for key, item in OBJECTS.items()}
    lists = lists_of(tmp_path / "out")
    assert {name: lists[name] for name in TOOL_EXPORTS[name].splits} == TOOL_EXPORTS[name].splits


@pytest.mark.parametrize("name", VOC)
def test_export_of_voc_is_read_as_it_is(tmp_path: Path, name: str) -> None:
    TOOL_EXPORTS[name].make(tmp_path)
    splits = DataFolder(tmp_path).list_splits()
    assert set(choose_training_splits(tmp_path)[0]) <= set(splits)
    samples = [sample for split in splits for sample in load_samples(tmp_path, split)]
    report = scan_samples(samples)
    assert [str(finding) for finding in report.findings if finding.level != "note"] == []
    found = {record.image_path.stem: record for record in report.records}
    assert {key: (found[key].names, found[key].boxes.tolist()) for key in OBJECTS} == {
        key: ((item.name,), [list(item.box)]) for key, item in OBJECTS.items()
    }
    for split, ids in TOOL_EXPORTS[name].splits.items():
        assert [sample.image_path.stem for sample in load_samples(tmp_path, split)] == ids


@pytest.mark.parametrize("name", TRAINED)
def test_train_runs_on_an_export(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    TOOL_EXPORTS[name].make(tmp_path / "data")
    argv = [*QUICK, "--epochs", "1", "--workers", "0", "--val", "none", "--name", "run"]
    assert train.main(argv) == 0
    assert last_of("run").is_file()
