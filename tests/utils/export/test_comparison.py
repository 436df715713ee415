"""export.py --compare: a table of size, accuracy and speed over the formats."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest

import export
from tests.test_export import make_weights
from tests.voc_folder import make_voc_folder
from utils.cli.errors import UserError

PACKAGES = ("onnx", "onnxscript", "onnxruntime", "openvino", "ncnn", "pnnx")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the export, with the weights best.pth in the current one."""
    monkeypatch.chdir(tmp_path)
    make_weights(tmp_path / "best.pth", "se")
    return tmp_path / "runs/export/exp"


def compare(*argv: str) -> int:
    return export.main(["--weights", "best.pth", "--compare", *argv])


def read(folder: Path) -> dict:
    return json.loads((folder / "comparison.json").read_text(encoding="utf-8"))


def test_size_accuracy_and_speed_of_each_format(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_voc_folder(Path("data"), 2, 3)
    assert compare("--format", "published", "pth", "--half", "--data", "data", "--split", "val") == 0
    out, content = capsys.readouterr().out, read(folder)
    rows = content["rows"]
    assert [row["format"] for row in rows] == ["weights", "published", "pth"]
    assert (content["batch_size"], content["input_size"], content["skipped"]) == (1, [64, 64], {})
    files = (Path("best.pth"), folder / "best_published.pth", folder / "best.pth")
    assert [row["megabytes"] for row in rows] == [path.stat().st_size / 1e6 for path in files]
    assert rows[2]["megabytes"] < 0.6 * rows[0]["megabytes"]
    assert all(0 <= row["map50_95"] <= row["map50"] <= 1 for row in rows)
    assert all(0 < row["network_ms"] < row["total_ms"] for row in rows)
    assert {row["precision"] for row in rows} == {"float32"}  # stored in 16 bits
    lines = (folder / "comparison.md").read_text(encoding="utf-8").splitlines()
    assert lines[0].split(" | ")[3:6] == ["MB", "mAP50", "mAP50-95"]
    assert [line.split(" | ")[0] for line in lines[2:5]] == ["| weights", "| published", "| pth"]
    assert f" | {rows[1]['megabytes']:.1f} | {rows[1]['map50']:.4f} | " in lines[3]
    assert "batch 1, 64x64, " in lines[6]
    assert "\n".join(lines) in out
    with (folder / "comparison.csv").open(encoding="utf-8") as file:
        assert [float(row["total_ms"]) for row in csv.DictReader(file)] == [row["total_ms"] for row in rows]
    assert "comparison" not in (folder / "MODEL_CARD.md").read_text(encoding="utf-8").partition("## Data")[0]


def test_what_cannot_be_exported_here_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for package in PACKAGES:
        monkeypatch.setitem(sys.modules, package, None)

    def fail(self: object, job: object, folder: Path) -> list[Path]:
        (folder / "half.pth").write_bytes(b"x")
        raise UserError("--format published: broken", exit_code=1)

    monkeypatch.setattr("utils.export.weight_files.PublishedFormat.write", fail)
    assert compare() == 0
    content = read(folder)
    assert [row["format"] for row in content["rows"]] == ["weights", "pth"]
    assert list(content["skipped"]) == ["onnx", "openvino", "ncnn", "darknet", "published"]
    assert "needs onnx, which cannot be imported" in content["skipped"]["onnx"]
    assert "takes --phi none only" in content["skipped"]["darknet"]
    assert content["rows"][0]["map50"] is None
    table = (folder / "comparison.md").read_text(encoding="utf-8")
    assert "- mAP not measured: add --data DIR\n- skipped onnx: " in table
    assert "- skipped published: --format published: broken\n" in table
    assert not (folder / "half.pth").exists()
    assert "next: python predict.py photo.jpg --weights runs/export/exp/best.pth\n" in capsys.readouterr().out


def test_a_named_format_that_fails_is_an_error(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare("--format", "pth", "darknet") == 2
    assert "takes --phi none only" in capsys.readouterr().err
    assert not folder.exists()
