from __future__ import annotations

import json
import os
import pickle
import random
from pathlib import Path
from typing import Any

import albumentations as A
import cv2
import numpy as np
import pytest
import torch
import yaml

from utils.cli.errors import UserError
from utils.data.augmentation import Augmenter
from utils.data.augmentation_check import check_augmentation, draw_objects
from utils.data.custom_augmentation import hash_transforms, load_transforms

SIZE = (64, 96)
NESTED = [
    A.HorizontalFlip(p=0.5),
    A.OneOf([A.CLAHE(p=1.0), A.Sequential([A.Blur(p=1.0), A.ToGray(p=0.5)])], p=0.4),
    A.SomeOf([A.VerticalFlip(), A.OneOf([A.NoOp(), A.RandomOrder([A.RandomGamma(), A.ToGray()], n=2)])], n=1),
    A.Compose([A.SelectiveChannelTransform([A.SomeOf([A.Blur()], n=3, replace=True)])], p=0.5),
    A.ShiftScaleRotate(p=0.2),
]


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(content: Any, name: str = "mine.json") -> str:
    Path(name).write_text(json.dumps(content))
    return name


def compose(*transforms: Any) -> dict[str, Any]:
    return {"transform": {"__class_fullname__": "Compose", "transforms": list(transforms)}}


def augment(name: str, seed: int = 0, own: list[Any] | None = None) -> tuple[np.ndarray, list[Any]]:
    image, target = Augmenter(SIZE, name, own).augment(*draw_objects((80, 90)), np.random.default_rng(seed))
    return image, [target.boxes.tolist(), target.labels.tolist(), target.difficult.tolist()]


@pytest.mark.parametrize("kind", ["json", "yaml"])
def test_a_saved_pipeline_does_what_it_did(kind: Any) -> None:
    A.save(A.Compose([]), f"empty.{kind}", data_format=kind)
    assert load_transforms(f"empty.{kind}") == []
    A.save(A.Compose(NESTED), f"mine.{kind}", data_format=kind)
    assert hash_transforms(load_transforms(f"mine.{kind}")) == hash_transforms(NESTED)
    check_augmentation(Augmenter(SIZE, f"mine.{kind}"))
    for seed in range(20):
        ours, theirs = augment(f"mine.{kind}", seed), augment("given", seed, NESTED)
        np.testing.assert_array_equal(ours[0], theirs[0])
        assert ours[1] == theirs[1]


def test_box_settings_of_a_file_are_ours_and_it_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    boxes = A.BboxParams("yolo", min_area=1e6)
    A.save(A.Compose([A.VerticalFlip(p=1.0)], bbox_params=boxes), "mine.json")
    Path("nested.json").write_text(
        json.dumps(compose(json.loads(Path("mine.json").read_text())["transform"]))
    )
    assert augment("nested.json")[1] == augment("mine.json")[1]
    assert augment("mine.json")[1][1]  # a box of less than a million pixels is kept
    assert "warning: mine.json: bbox_params not used" in capsys.readouterr().err


def node(kind: str, *transforms: Any, **arguments: Any) -> dict[str, Any]:
    return {"__class_fullname__": kind, **({"transforms": transforms} if transforms else {}), **arguments}


NO_OP = DEEP = node("NoOp")
AGAIN = {"replace": True}
for _ in range(12):
    DEEP = node("Sequential", DEEP)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({}, "no albumentations pipeline"),
        ({"transform": []}, "no albumentations pipeline"),
        ([1], "no albumentations pipeline"),
        (compose({"__class_fullname__": "os.system", "command": "touch ran"}), "'os.system' is no transform"),
        (compose({"__class_fullname__": "Path"}), "'Path' is no transform of albumentations"),
        (compose({"__class_fullname__": "BboxParams", "format": "yolo"}), "'BboxParams' is no transform"),
        (compose({"__class_fullname__": "utils.data.augmentation.ColorMatrix"}), "ColorMatrix' is no transf"),
        (compose({"__class_fullname__": "Lambda", "image": "print"}), "Lambda needs code; "),
        (compose({"__class_fullname__": ["NoOp"]}), "is no transform"),
        (compose({"__class_fullname__": "evil.module.HorizontalFlip"}), "HorizontalFlip' is no transform"),
        (compose({"__class_fullname__": "BasicTransform"}), "'BasicTransform' is no transform"),
        (compose({"__class_fullname__": "ReplayCompose", "transforms": []}), "ReplayCompose needs code; "),
        (compose({"__class_fullname__": "OneOf", "transforms": []}), "OneOf needs a list of 1 to 100"),
        (compose(*[NO_OP] * 101), "Compose needs a list of 0 to 100"),
        (
            compose(*[node("OneOf", *[NO_OP] * 26)] * 4),
            "has 104 transforms, counted with n of SomeOf; at most",
        ),
        (compose(node("SomeOf", node("SomeOf", NO_OP, n=11, **AGAIN), n=10, **AGAIN)), "has 110 transforms"),
        (compose(node("SomeOf", NO_OP, n=-1)), "SomeOf: n must be a whole number from 1 to 100, got '-1'"),
        (compose(node("RandomOrder", NO_OP, n=1.5)), "RandomOrder: n must be a whole number"),
        (compose(node("SomeOf", NO_OP, replace="no")), "SomeOf: replace must be true or false, got 'no'"),
        (
            compose(node("SelectiveChannelTransform", NO_OP, channels=[0, 3])),
            "a list of 1 to 3 numbers from 0",
        ),
        (compose(node("OneOf", node("NoOp", p=0))), "OneOf: p of one of its transforms must be above 0"),
        (compose(node("BaseCompose", NO_OP)), "'BaseCompose' is no transform"),
        (compose(node("Blur", blur_limit=10**400)), "Blur has 10{39}; numbers are at most 20000"),
        (compose({"p": 1}), "'None' is no transform"),
        (compose("NoOp"), "'None' is no transform"),
        ({"transform": {"__class_fullname__": "OneOf"}}, "OneOf needs a list of 1 to 100 transforms"),
        ({"transform": DEEP}, "more than 10 transforms inside each other"),
        (compose({"__class_fullname__": "Blur", "blur_limt": 3}), r"Blur: Argument\(s\) 'blur_limt' are not"),
        (compose({"__class_fullname__": "Blur", "blur_limit": "x"}), "Blur: .*blur_limit"),
        ({"transform": {"__class_fullname__": "Compose", "transforms": [], "p": "x"}}, "Compose: p must be"),
        (compose({"__class_fullname__": "Resize", "height": 60000, "width": 8}), "Resize has 60000; numbers"),
        (compose({"__class_fullname__": "Blur", "blur_limit": [3, 99999]}), "Blur has 99999; numbers"),
    ],
)
def test_a_file_that_is_no_pipeline_is_refused(content: Any, reason: str) -> None:
    with pytest.raises(UserError, match=f"^mine.json: .*{reason}") as error:
        load_transforms(write(content))
    assert "\n" not in str(error.value)
    Path("mine.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match=r"^mine\.yaml: "):
        load_transforms("mine.yaml")
    assert sorted(os.listdir()) == ["mine.json", "mine.yaml"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [("a: &a [1]\nb: *a", "alias"), ("!!python/object/apply:os.system [touch ran]", "not a plain YAML file")],
)
def test_yaml_runs_nothing(text: str, reason: str) -> None:
    Path("mine.yaml").write_text(text)
    with pytest.raises(UserError, match=reason):
        load_transforms("mine.yaml")
    assert os.listdir() == ["mine.yaml"]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("", "mine0.py has no function 'make'"),
        ("make = 3", "has no function 'make'"),
        ("def make():\n    return 3", "must return a list of albumentations transforms, not int"),
        ("def make():\n    return [3]", "must return a list of albumentations transforms; it has int"),
        ("def make(size):\n    return []", "TypeError: make.. missing 1 required"),
        ("raise SystemExit(3)", "SystemExit: 3"),
    ],
)
def test_a_function_that_gives_no_transforms_is_refused(code: str, reason: str) -> None:
    number = abs(hash(code))
    Path(f"mine{number}.py").write_text(code)
    with pytest.raises(UserError, match=f"^--augment mine.*{reason.replace('mine0', f'mine{number}')}"):
        load_transforms(f"mine{number}.py:make")
    with pytest.raises(UserError, match=r"gone\.py"):
        load_transforms("gone.py:make")


def test_a_function_may_return_a_compose_and_another_process_calls_it_again() -> None:
    Path("composed.py").write_text(
        "import albumentations as A\n\n\ndef make():\n    return A.Compose([A.VerticalFlip(p=1.0)])\n"
    )
    augmenter = Augmenter(SIZE, "composed.py:make")
    image, target = draw_objects((80, 90))
    ours = augmenter.augment(image, target, np.random.default_rng(1))
    theirs = pickle.loads(pickle.dumps(augmenter)).augment(image, target, np.random.default_rng(1))
    np.testing.assert_array_equal(ours[0], theirs[0])
    smaller = augmenter.resized((32, 32)).augment(image, target, np.random.default_rng(1))
    assert smaller[0].shape == (32, 32, 3)


def test_the_hash_is_of_names_and_arguments() -> None:
    class Mine(A.ImageOnlyTransform):
        pass

    some = [A.SomeOf([A.Blur(), A.ToGray()], n=2, replace=replace) for replace in (False, True)]
    colors = [A.SelectiveChannelTransform([A.Blur()], channels) for channels in ([0], [1])]
    lists = [
        *([each] for each in some + colors),
        [],
        [A.Blur()],
        [A.Blur(p=0.1)],
        [A.Blur(blur_limit=9)],
        [A.ToGray()],
        [Mine()],
        NESTED,
    ]
    assert len({hash_transforms(each) for each in lists}) == len(lists)
    assert hash_transforms([A.Blur()]) == hash_transforms([A.Blur()])


# The check before the first step.


class Own(A.DualTransform):
    """Does nothing; each test changes a method."""

    def apply(self, img: np.ndarray, **params: Any) -> np.ndarray:
        return img

    def apply_to_bboxes(self, bboxes: np.ndarray, **params: Any) -> np.ndarray:
        return bboxes


def made(**methods: Any) -> A.BasicTransform:
    return type("Own", (Own,), methods)(p=0.01)


def noise(draw: Any) -> Any:
    return lambda self, img, **params: cv2.add(img, np.full_like(img, int(draw(self) * 50)))


STATE = iter(range(10**6))


@pytest.mark.parametrize(
    ("transforms", "reason"),
    [
        ([made(apply=noise(lambda self: random.random()))], "Own: draws from the global generator of random"),
        ([made(apply=noise(lambda self: np.random.rand()))], "Own: draws from the global generator of numpy"),
        ([made(apply=noise(lambda self: torch.rand(1)))], "Own: draws from the global generator of torch"),
        ([made(apply=noise(lambda self: np.random.default_rng().random()))], "Own: gives two results"),
        ([made(apply=noise(lambda self: next(STATE)))], "Own: gives two results"),
        ([made(apply=lambda self, img, **params: img[:-1])], r"Own: changes the size .* \(63, 96\)"),
        ([made(apply=lambda self, img, **params: img / 255.0)], "Own: must return an image uint8"),
        ([made(apply=lambda self, img, **params: img[..., 0])], r"Own: must return an image \(H, W, 3\)"),
        ([made(apply_to_bboxes=lambda self, b, **params: b[:, :4])], "Own: loses the labels"),
        (
            [made(apply_to_bboxes=lambda self, b, **params: b[:0])],
            "Own: loses the box of an object that is seen",
        ),
        ([made(apply_to_bboxes=lambda self, b, **params: b[:-1])], "Own: loses the box of an object"),
        ([made(apply=lambda self, img, **params: img[:, ::-1].copy())], "Own: leaves a box where"),
        (
            [A.RandomCrop(32, 32, p=0.02), A.OneOf([A.Resize(*SIZE), A.NoOp()])],
            "RandomCrop, Resize: changes the size",
        ),
        (
            [made(apply_to_bboxes=lambda self, b, **params: np.hstack([b[:, :5], 1 - b[:, 5:]]))],
            "Own: changes labels or difficult flags",
        ),
        ([made(apply_to_bboxes=A.DualTransform.apply_to_bboxes)], "Own: NotImplementedError: BBoxes"),
        ([A.OneOf([A.NoOp(), A.Normalize()], p=0.01)], "Normalize: must return an image uint8"),
        ([A.NoOp(), A.RandomCrop(32, 32, p=0.5)], r"RandomCrop: changes the size .*add A.Resize\(64, 96\)"),
        ([A.OneOf([A.NoOp(), A.Transpose()], p=0.01)], "Transpose: changes the size"),
        ([A.Transpose(), A.NoOp()], "Transpose: changes the size"),
        (
            [A.SelectiveChannelTransform([A.OneOf([A.VerticalFlip()])], [0])],
            "Selective.*: moves no boxes; use",
        ),
    ],
)
def test_a_transform_that_breaks_training_is_named(transforms: list[Any], reason: str) -> None:
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    with pytest.raises(UserError, match=f"^--augment mine.py:make: {reason}") as error:
        check_augmentation(Augmenter(SIZE, "mine.py:make", transforms))
    assert "\n" not in str(error.value)
    assert states == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())


@pytest.mark.parametrize(
    "transforms",
    [
        [],
        [made(apply=noise(lambda self: self.random_generator.random() + self.py_random.random()))],
        [A.RandomCrop(32, 32, p=1.0), A.Resize(*SIZE)],
        [A.RandomScale(p=0.5), A.OneOf([A.Blur(), A.CLAHE()]), A.Resize(*SIZE)],
        NESTED,
    ],
)
def test_transforms_that_train_well_are_taken(transforms: list[Any]) -> None:
    probabilities = [each.p for each in transforms]
    check_augmentation(Augmenter(SIZE, "mine.py:make", transforms))
    assert [each.p for each in transforms] == probabilities


def test_a_rare_fault_names_the_image() -> None:
    image, target = draw_objects((80, 90))
    for transform in (made(apply=lambda self, img, **params: img[:1]), A.Normalize()):
        transform.p = 1.0
        with pytest.raises(UserError, match=r"^--augment mine\.py:make: image check: "):
            Augmenter(SIZE, "mine.py:make", [transform]).augment(image, target, np.random.default_rng(0))
