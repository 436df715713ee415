from __future__ import annotations

import json
from pathlib import Path

import pytest

import data
from tests.utils.data.conftest import write_voc
from utils.data.voc_xml import VocObject, read_annotation


@pytest.fixture
def voc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write eleven images with a reviewed cat and a predicted dog each."""
    monkeypatch.chdir(tmp_path)
    objects = {
        str(n): [VocObject("cat", (0, 0, 10 + n, 20 - n)), VocObject("dog", (10, 5, 40, 30))]
        for n in range(10)
    }
    root = write_voc(Path("voc"), {"train": objects, "val": {"10": objects["0"]}})
    for xml in (root / "Annotations").iterdir():
        xml.write_text(xml.read_text().replace("<name>dog", "<score>0.9</score><name>dog"))
    return root


@pytest.mark.parametrize(
    ("verb", "more"),
    [
        ("check", ["--json", "report.json"]),
        ("stats", []),
        ("show", []),
        ("anchors", ["--number", "2"]),
        ("split", []),
        ("augment", ["--out", "more", "--imgsz", "64"]),
    ],
)
@pytest.mark.parametrize("skip", [False, True])
def test_every_verb_says_what_it_does_with_predictions(
    voc: Path, capsys: pytest.CaptureFixture[str], verb: str, more: list[str], skip: bool
) -> None:
    if verb == "split":
        for path in (voc / "ImageSets/Main").iterdir():
            path.unlink()
    assert data.main([verb, "--data", str(voc), *more, *(["--skip-unreviewed"] if skip else [])]) == 0
    said = capsys.readouterr()
    assert ("skipped" if skip else "used; --skip-unreviewed skips them") in said.out + said.err
    if verb == "check":
        report = json.loads(Path("report.json").read_text())
        assert report["splits"]["train"]["objects"] == ({"cat": 10} if skip else {"cat": 10, "dog": 10})
        assert len([row for row in report["findings"] if row["kind"] == "unreviewed predictions"]) == 11
        assert report["next"].endswith("--skip-unreviewed") == skip
    if verb == "augment":
        assert ("10 objects with a score, which augmented copies lack" in said.err) != skip
        names = {
            item.name for xml in Path("more/Annotations").iterdir() for item in read_annotation(xml).objects
        }
        assert names == ({"cat"} if skip else {"cat", "dog"})
