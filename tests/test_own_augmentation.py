"""Transforms of the user's own through train.py and data.py, and the examples of the documentation."""

from __future__ import annotations

import re
from pathlib import Path

import albumentations as A
import numpy as np
import pytest
from PIL import Image

import data
import train
from tests.training_room import QUICK, are_same_runs, errors_in, last_of
from utils.data.augmentation import Augmenter
from utils.data.augmentation_check import check_augmentation, draw_objects
from utils.training.run_folder import Run

DOCS = Path(__file__).resolve().parent.parent / "docs" / "training.md"
EXACT = (*QUICK, "--epochs", "2", "--workers", "0")

pytestmark = pytest.mark.usefixtures("room")


@pytest.fixture(scope="module")
def examples() -> dict[str, str]:
    """The examples of the documentation as files in the current folder; gives what --augment takes."""
    blocks = re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    for name, text in blocks:
        Path(name).write_text(text)
    functions = re.findall(r"def (\w+)\(", dict(blocks)["my_augmentation.py"])
    return {name: f"my_augmentation.py:{name}" for name in functions} | {"rain.yaml": "rain.yaml"}


def test_the_documented_examples_pass_the_check_and_do_what_they_say(examples: dict[str, str]) -> None:
    assert list(examples) == ["rain", "rotation", "vertical_flip", "contrast", "rain.yaml"]
    image, target = draw_objects((64, 64))
    changed: dict[str, set[bool]] = {}
    for name, spec in examples.items():
        augmenter = Augmenter((64, 64), spec)
        check_augmentation(augmenter)
        made = [
            augmenter.augment(image, target, np.random.default_rng(seed), is_placed=True)
            for seed in range(20)
        ]
        tops = [each.boxes[each.labels == 0][0, 1].item() for _, each in made]  # of what was at the top left
        changed[name] = {top > 32 for top in tops}
        assert any(not np.array_equal(pixels, image) for pixels, _ in made)
    assert changed["rotation"] == changed["vertical_flip"] == {False, True}
    assert changed["rain"] == changed["contrast"] == changed["rain.yaml"] == {False}


@pytest.mark.slow
def test_a_run_with_own_transforms_resumes_to_the_same_bits(
    examples: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = examples["vertical_flip"]
    assert train.main([*EXACT, "--name", "whole", "--augment", spec]) == 0
    assert f"augment: {spec}" in Path("runs/train/whole/args.yaml").read_text()
    finish_epoch = Run.finish_epoch

    def interrupt(self: Run, *args: object) -> None:
        finish_epoch(self, *args)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Run, "finish_epoch", interrupt)
        assert train.main([*EXACT, "--name", "halted", "--augment", spec]) == 130
    capsys.readouterr()

    resume = ["--resume", str(last_of("halted")), "--workers", "2"]
    for argv, reason in (
        ([], f"has transforms of your own; to import their code add --augment {spec}"),
        (["--augment", "light"], f"was made with --augment {spec}, you asked for light"),
        (["--augment", examples["rain"]], "its transforms have changed since the run began"),
    ):
        assert train.main([*resume, *argv]) == 2
        (error,) = errors_in(capsys.readouterr().err)
        assert reason in error
    assert train.main([*resume, "--augment", spec]) == 0
    assert are_same_runs("halted", "whole")


@pytest.mark.slow
def test_a_file_is_read_again_where_it_was_or_is_now(capsys: pytest.CaptureFixture[str]) -> None:
    A.save(A.Compose([A.VerticalFlip()]), "flip.yaml", data_format="yaml")
    argv = [*QUICK, "--workers", "0", "--epochs", "1", "--name", "file", "--augment", "flip.yaml"]
    assert train.main(argv) == 0
    resume = ["--resume", str(last_of("file")), "--epochs", "2"]
    Path("flip.yaml").rename("moved.yaml")
    assert train.main(resume) == 2
    assert "its transforms flip.yaml are missing; name where they are now" in capsys.readouterr().err
    A.save(A.Compose([A.VerticalFlip(p=0.4)]), "flip.yaml", data_format="yaml")
    assert train.main(resume) == 2
    assert "flip.yaml: its transforms have changed since the run began" in capsys.readouterr().err
    assert train.main([*resume, "--augment", "moved.yaml"]) == 0


@pytest.mark.parametrize(
    ("augment", "reason"),
    [
        ("heavy", "--augment heavy: choose from light, default, reference, or give your own: FILE.yaml, "),
        ("gone.yaml", "--augment gone.yaml: no such file"),
        ("gone.py:make", "gone.py:make: FileNotFoundError: no such file"),
        ("json:dumps", "--augment json:dumps: TypeError: dumps() missing"),
    ],
)
def test_what_cannot_be_used_is_refused_before_a_run_folder_is_made(
    augment: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = (
        (train, [*QUICK, "--name", "refused"]),
        (data, ["show", "--data", "data", "--name", "refused"]),
        (data, ["augment", "--data", "data", "--out", "refused", "--imgsz", "64"]),
    )
    for script, argv in commands:
        assert script.main([*argv, "--augment", augment]) == 2
        (error,) = errors_in(capsys.readouterr().err)
        assert reason in error
    assert not list(Path().glob("**/refused"))


def test_a_transform_that_changes_the_size_is_named_before_the_first_step(
    capsys: pytest.CaptureFixture[str],
) -> None:
    A.save(A.Compose([A.RandomCrop(32, 32)]), "crop.json")
    assert train.main([*QUICK, "--name", "refused", "--augment", "crop.json"]) == 2
    (error,) = errors_in(capsys.readouterr().err)
    assert error.startswith(
        "error: --augment crop.json: RandomCrop: changes the size (height, width) to (32, 32)"
    )


def test_show_draws_what_training_sees(capsys: pytest.CaptureFixture[str]) -> None:
    A.save(A.Compose([A.InvertImg(p=1.0)]), "invert.json")
    pages = {}
    for name in ("light", "invert.json"):
        folder = name.replace(".", "_")
        argv = ["--augment", name, "--imgsz", "64", "96", "--mosaic", "0", "--name", folder]
        assert data.main(["show", "--data", "data", *argv]) == 0
        out = capsys.readouterr().out
        assert f"runs/show/{folder}/sheet0.jpg" in out
        assert out.endswith(f"next: python train.py --data data --augment {name}\n")
        pages[name] = np.asarray(Image.open(f"runs/show/{folder}/sheet0.jpg"), dtype=float)
    light, inverted = pages.values()
    assert light.shape == inverted.shape
    assert light.shape[1] > light.shape[0]  # cells of 64 x 96
    assert np.abs(light - inverted).mean() > 5
    for flag in ("--imgsz", "--mosaic"):
        assert data.main(["show", "--data", "data", flag, "0" if flag == "--mosaic" else "64"]) == 2
        assert f"{flag}: needs --augment" in capsys.readouterr().err


def test_augment_writes_copies_with_own_transforms() -> None:
    A.save(A.Compose([A.InvertImg(p=1.0)]), "invert.json")
    means = []
    for name in ("light", "invert.json"):
        argv = ["--augment", name, "--out", f"copies_{name}", "--imgsz", "64", "--mosaic", "0"]
        assert data.main(["augment", "--data", "data", *argv]) == 0
        copies = sorted(Path(f"copies_{name}/JPEGImages").glob("*_aug1.jpg"))
        means.append(np.mean([np.asarray(Image.open(path)).mean() for path in copies]))
    assert abs(means[0] - means[1]) > 1
