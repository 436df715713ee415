from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from PIL import Image

from tests.utils.data.conftest import MakeVoc
from utils.cli.errors import UserError
from utils.data import annotation_cache
from utils.data.annotation_cache import read_samples
from utils.data.samples import load_samples
from utils.data.voc_xml import VocObject

CAT, LATE = VocObject("cat", (2.5, 3, 10, 12), True), VocObject("late", (0, 0, 9, 9))


@pytest.fixture
def voc(make_voc: MakeVoc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return make_voc({"train": {"a": [CAT], "b": []}})


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note every file that is really read."""
    seen: list[str] = []
    for name in ("read_annotation", "read_header", "hash_image"):

        def read(path: Path, real: object = getattr(annotation_cache, name)) -> object:
            seen.append(path.name)
            return real(path)  # type: ignore[operator]

        monkeypatch.setattr(annotation_cache, name, read)
    return seen


def test_nothing_to_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_samples([]) == []
    assert not annotation_cache.CACHE.exists()


def test_files_are_read_once_until_they_change(voc: Path, reads: list[str]) -> None:
    samples = load_samples(voc, "train")
    first = read_samples(samples, hashes=True)
    assert first[0].annotation is not None
    assert first[0].annotation.objects == (CAT,)
    assert sorted(reads) == ["a.jpg", "a.xml", "b.jpg", "b.xml"]
    reads.clear()
    assert read_samples(samples, hashes=True) == first
    assert reads == []
    xml = voc / "Annotations" / "a.xml"
    xml.write_text(xml.read_text().replace("cat", "dog"))  # as long as before: the time tells
    os.utime(xml, ns=(1, 1))
    changed = read_samples(samples)[0].annotation
    assert reads == ["a.xml"]
    assert changed is not None
    assert changed.objects[0].name == "dog"


def test_nothing_of_an_annotation_is_forgotten(voc: Path, reads: list[str]) -> None:
    xml = voc / "Annotations" / "a.xml"
    polygon = "<polygon><pt><x>1</x><y>2</y></pt><point>5,6</point><point>1,6</point></polygon>"
    more = f"<object><name>cat</name>{polygon}<score>0.25</score></object><object><name>bad</name></object>"
    xml.write_text(xml.read_text().replace("</annotation>", f"{more}</annotation>"))
    samples = load_samples(voc, "train")
    first = read_samples(samples)[0].annotation
    assert first is not None
    assert (first.objects[1].score, first.counted, len(first.errors)) == (0.25, {"polygon": 1}, 1)
    assert read_samples(samples)[0].annotation == first
    assert reads.count("a.xml") == 1


def test_a_memory_of_another_version_is_done_without(voc: Path, reads: list[str]) -> None:
    samples = load_samples(voc, "train")
    read_samples(samples)
    for memory in annotation_cache.CACHE.iterdir():
        stored = memory.read_text()
        memory.write_text(re.sub('"format": [0-9]+', '"format": 2', stored))
    reads.clear()
    read_samples(samples)
    assert "a.xml" in reads


def test_faults_are_remembered_too(voc: Path, reads: list[str]) -> None:
    (voc / "JPEGImages" / "a.jpg").write_bytes(b"GIF")
    samples = load_samples(voc, "train")
    first = read_samples(samples)[0]
    assert first.header is None
    assert first.image_error.startswith(str(voc / "JPEGImages" / "a.jpg"))
    reads.clear()
    assert read_samples(samples)[0] == first
    assert reads == []


def test_damage_that_only_decoding_finds_is_not_forgotten(voc: Path) -> None:
    image = voc / "JPEGImages" / "a.jpg"
    Image.effect_noise((40, 30), 60).save(image, format="PNG")
    content = bytearray(image.read_bytes())
    content[len(content) // 2] ^= 1  # the end marker is there
    image.write_bytes(content)
    samples = load_samples(voc, "train")
    assert read_samples(samples)[0].image_error == ""
    assert "a.jpg" in read_samples(samples, decode=True)[0].image_error
    assert "a.jpg" in read_samples(samples)[0].image_error


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"format": 4, "files": {"a.jpg": {}}}', b'{"format": 0}', b"\xff"]
)
def test_a_spoilt_memory_is_done_without(voc: Path, content: bytes) -> None:
    samples = load_samples(voc, "train")
    expected = read_samples(samples)
    for memory in annotation_cache.CACHE.iterdir():
        memory.write_bytes(content)
    assert read_samples(samples) == expected


def test_a_memory_that_cannot_be_written_is_done_without(voc: Path) -> None:
    annotation_cache.CACHE.write_text("")
    assert read_samples(load_samples(voc, "train"))[0].image_error == ""


def test_trouble_with_a_disk_is_not_remembered(voc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = load_samples(voc, "train")
    real = annotation_cache.read_header

    def broken(path: Path) -> object:
        try:
            raise OSError(5, "Input/output error")
        except OSError:
            raise UserError(f"{path}: cannot read the image: Input/output error") from None

    monkeypatch.setattr(annotation_cache, "read_header", broken)
    assert "Input/output" in read_samples(samples)[0].image_error
    monkeypatch.setattr(annotation_cache, "read_header", real)
    assert read_samples(samples)[0].image_error == ""
