from __future__ import annotations

import hashlib
import io
import tarfile
import urllib.request
from pathlib import Path

import pytest
from torchvision.datasets import utils as torchvision_utils
from torchvision.datasets.voc import DATASET_YEAR_DICT

from data import main
from tests.utils.tools.conversion import snapshot
from utils.data.samples import DataFolder, load_samples
from utils.tools import download

KEYS = {"2007": ("2007", "trainval"), "2007-test": ("2007", "test"), "2012": ("2012", "trainval")}


def run_download(*argv: object) -> int:
    return main(["download", *map(str, argv)])


def make_archive(path: Path, year: str, split: str) -> None:
    members = {
        f"ImageSets/Main/{split}.txt": f"{split}\n",
        f"JPEGImages/{split}.jpg": "picture",
        f"Annotations/{split}.xml": "<annotation/>",
    }
    with tarfile.open(path, "w") as archive:
        for name, text in members.items():
            entry = tarfile.TarInfo(f"VOCdevkit/VOC{year}/{name}")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))


def fetch(url: str, filename: str) -> None:
    """Stand in for torchvision's own, which asks every answer for a length and gets none from a file."""
    with urllib.request.urlopen(url) as response:
        Path(filename).write_bytes(response.read())


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that holds three small archives, to which torchvision's addresses lead."""
    folder = tmp_path / "server"
    folder.mkdir()
    for key, (year, split) in KEYS.items():
        entry = DATASET_YEAR_DICT[key]
        path = folder / entry["filename"]
        make_archive(path, year, split)
        md5 = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        monkeypatch.setitem(DATASET_YEAR_DICT, key, entry | {"url": path.as_uri(), "md5": md5})
    monkeypatch.setattr(torchvision_utils, "_urlretrieve", fetch)
    return folder


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        ([], "YEAR is missing: choose from 2007, 2012"),
        (["2011"], "YEAR 2011: choose from 2007, 2012"),
        (["2007", "coco"], "YEAR coco: choose from 2007, 2012"),
    ],
)
def test_usage(capsys: pytest.CaptureFixture[str], argv: list[str], reason: str) -> None:
    assert run_download(*argv) == 2
    assert reason in capsys.readouterr().err


def test_both_years(tmp_path: Path, server: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "new/VOCdevkit"
    assert run_download("2007", "2012", "--data", data) == 0
    assert sorted(path.name for path in data.iterdir()) == ["VOC2007", "VOC2012"]
    assert DataFolder(data).list_splits() == ["VOC2007/test", "VOC2007/trainval", "VOC2012/trainval"]
    (sample,) = load_samples(data, "VOC2007/test")
    assert sample.image_path.read_text() == "picture"
    said = capsys.readouterr()
    for key in KEYS:
        entry = DATASET_YEAR_DICT[key]
        assert f"md5 {entry['md5']}  from {entry['url']}" in said.err
    assert "VOCtrainval_06-Nov-2007.tar  460 MB" in said.err
    assert said.out.splitlines()[-1] == f"next: python data.py check --data {data}"


def test_keep(tmp_path: Path, server: Path) -> None:
    assert run_download("2012", "--data", tmp_path / "data", "--keep") == 0
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == [
        "VOC2012",
        "VOCtrainval_11-May-2012.tar",
    ]
    kept = tmp_path / "data/VOCtrainval_11-May-2012.tar"
    assert kept.read_bytes() == (server / kept.name).read_bytes()


def test_what_exists_is_not_touched(tmp_path: Path, server: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data/VOC2012").mkdir(parents=True)
    before = snapshot(tmp_path / "data")
    assert run_download("2007", "2012", "--data", tmp_path / "data") == 2
    assert "VOC2012: exists already and is not overwritten" in capsys.readouterr().err
    assert snapshot(tmp_path / "data") == before


def test_archive_put_there_by_hand(
    tmp_path: Path, server: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_network(*_: object, **__: object) -> None:
        pytest.fail("the archive is here")

    monkeypatch.setattr(torchvision_utils, "_urlretrieve", no_network)
    path = tmp_path / "data/VOCtrainval_11-May-2012.tar"
    path.parent.mkdir()
    content = (server / path.name).read_bytes()
    path.write_bytes(content[:-1])
    assert run_download("2012", "--data", path.parent) == 2
    assert f"{path}: not the whole official file" in capsys.readouterr().err
    assert path.read_bytes() == content[:-1]
    path.write_bytes(content)
    assert run_download("2012", "--data", path.parent) == 0
    assert f"is here: {path}" in capsys.readouterr().err
    assert path.read_bytes() == content
    assert sorted(found.name for found in path.parent.iterdir()) == ["VOC2012", path.name]


@pytest.mark.parametrize("fault", ["no network", "another file", "no tar", "no data in it", "silence"])
def test_failure_is_one_line_and_leaves_nothing(
    tmp_path: Path,
    server: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fault: str,
) -> None:
    path = server / "VOCtest_06-Nov-2007.tar"
    entry = DATASET_YEAR_DICT["2007-test"]
    if fault == "no network":
        path.unlink()
    elif fault == "another file":
        monkeypatch.setitem(DATASET_YEAR_DICT, "2007-test", entry | {"md5": "0" * 32})
    elif fault == "silence":

        def time_out(*_: object) -> None:
            raise TimeoutError("timed out")

        monkeypatch.setattr(torchvision_utils, "_urlretrieve", time_out)
    else:
        content = b"<html>" if fault == "no tar" else tarfile.NUL * tarfile.RECORDSIZE
        path.write_bytes(content)
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
        monkeypatch.setitem(DATASET_YEAR_DICT, "2007-test", entry | {"md5": md5})
    assert run_download("2007", "--data", tmp_path / "data") == 1
    said = capsys.readouterr()
    errors = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "unexpected" not in errors[0]
    assert "by hand" in errors[0]
    assert list((tmp_path / "data").iterdir()) == []


def test_ctrl_c_leaves_nothing(tmp_path: Path, server: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(_: str, filename: str, *__: object) -> None:
        Path(filename).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torchvision_utils, "_urlretrieve", stop)
    assert run_download("2012", "--data", tmp_path / "data") == 130
    assert list((tmp_path / "data").iterdir()) == []


def test_small_disk_is_said_first(
    tmp_path: Path, server: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = type("Usage", (), {"total": 8_000_000_000, "free": 3_900_000_000})
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: usage)
    assert run_download("2012", "--data", tmp_path / "data") == 1
    assert "3,900 MB are free, 3,999 MB are needed" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()
