from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from utils.cli.errors import UserError
from utils.data.augmentation import LEVELS, Augmenter
from utils.data.dataset import VocDataset
from utils.data.dataset_report import Record
from utils.data.train_dataset import AugmentSettings, TrainDataset
from utils.vision.image_reader import read_image
from utils.vision.letterbox import letterbox

INPUT = (64, 96)
SIZES = [(40, 30), (96, 64), (401, 299), (1003, 777), (250, 900)]


def edges(image: np.ndarray, above: int = 127) -> np.ndarray:
    """Find (x1, y1, x2, y2) of what is white."""
    rows, columns = np.nonzero(image[..., 1] > above)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], dtype=np.float32)


def marked(folder: Path, sizes: list[tuple[int, int]], orientation: int = 1) -> VocDataset:
    """Write black pictures (width, height), each with one white object, and give their data set."""
    records, exif = [], Image.Exif()
    exif[0x0112] = orientation
    for number, (width, height) in enumerate(sizes):
        pixels = np.zeros((height, width, 3), dtype=np.uint8)
        pixels[height // 4 : height * 3 // 4, width // 3 : width * 2 // 3] = 255
        path = folder / f"{number}.jpg"
        Image.fromarray(pixels).save(path, quality=95, exif=exif)
        seen = read_image(path)
        rows, columns = seen.shape[:2]
        box, difficult = edges(seen)[None], np.zeros(1, dtype=np.bool_)
        records.append(Record(str(number), path, columns, rows, ("thing",), box, difficult))
    return VocDataset(records, ("thing",))


def build(
    dataset: VocDataset, level: str = "default", mosaic: float = 0.0, mixup: float = 0.0, seed: int = 0
) -> TrainDataset:
    return TrainDataset(dataset, INPUT, AugmentSettings(mosaic, mixup, level), seed)


def test_cache_of_nothing() -> None:
    assert build(VocDataset([], ("thing",))).fill_cache().nbytes == 0


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("level", ["default", "reference"])
def test_box_fits_the_object_however_it_was_decoded(tmp_path: Path, level: str, orientation: int) -> None:
    dataset = marked(tmp_path, SIZES, orientation=orientation)
    samples = build(dataset, level)
    placement = Augmenter(INPUT, level, own=[])  # without flip and color
    reductions = {samples._reduction(index) for index in range(len(SIZES))}
    assert reductions >= ({1, 2, 4} if level == "default" else {1, 2})
    met = 0
    for seed in range(6):
        for index in range(len(SIZES)):
            rng = np.random.default_rng(seed)
            image, target = placement.augment(*samples._load(index), rng)
            if len(target) == 0:  # moved out of the canvas
                continue
            # The canvas is gray; in a picture drawn several times as large an edge is a ramp.
            np.testing.assert_allclose(
                target.boxes[0], edges(image, 192), atol=1.5 if level == "default" else 2
            )
            met += 1
    assert met > 20


@pytest.mark.parametrize("mosaic", [0.0, 1.0])
def test_finished_picture_has_its_boxes(tmp_path: Path, mosaic: float) -> None:
    """Of a single file, all four parts of a mosaic show the one object: what is bright is in some box."""
    samples = build(marked(tmp_path, [(1003, 777)]), "light", mosaic)
    for epoch in range(20):
        image, target = samples.render((epoch, 0))
        bright = image[..., 1] > (int(image[..., 1].max()) + 160) / 2
        inside = np.zeros(INPUT, dtype=bool)
        for x1, y1, x2, y2 in target.boxes.round().int().tolist():
            inside[max(0, y1 - 1) : y2 + 1, max(0, x1 - 1) : x2 + 1] = True
        assert len(target) > 0
        assert bright.any()
        assert (bright & ~inside).mean() < 0.01  # slivers have no box


@pytest.mark.parametrize("level", sorted(LEVELS))
@pytest.mark.parametrize(("mosaic", "mixup"), [(0.0, 0.0), (1.0, 0.0), (0.5, 1.0)])
def test_a_cache_changes_no_pixel(tmp_path: Path, level: str, mosaic: float, mixup: float) -> None:
    dataset = marked(tmp_path, SIZES)
    plain, cached = build(dataset, level, mosaic, mixup), build(dataset, level, mosaic, mixup)
    images = cached.fill_cache()
    assert images.nbytes == sum(images[index].nbytes for index in range(len(SIZES)))
    assert not any(images[index].flags.writeable for index in range(len(SIZES)))  # so nothing draws on them
    expected = [plain[epoch, index] for epoch in range(2) for index in range(len(SIZES))]
    for record in dataset.records:
        record.image_path.unlink()  # from now on memory has to do
    for number in reversed(range(len(expected))):
        image, target = cached[divmod(number, len(SIZES))]
        assert torch.equal(image, expected[number][0])
        assert torch.equal(target.boxes, expected[number][1].boxes)


def test_pictures_are_never_enlarged_by_what_reading_left_out(tmp_path: Path) -> None:
    dataset = marked(tmp_path, SIZES)
    assert [build(dataset, "none")._reduction(index) for index in range(len(SIZES))] == [1] * len(SIZES)
    assert [build(dataset, "default")._reduction(index) for index in range(len(SIZES))] == [1, 1, 2, 4, 8]
    for level in ("light", "default", "reference"):
        samples = build(dataset, level)
        for index, (width, height) in enumerate(SIZES):
            whole = min(INPUT[0] / height, INPUT[1] / width)
            image = dataset.read(index, samples._reduction(index))
            assert image.shape[0] >= min(height, height * whole)
            assert image.shape[1] >= min(width, width * whole)


@pytest.mark.parametrize("mosaic", [0.0, 1.0])
def test_level_none_is_what_inference_sees(tmp_path: Path, mosaic: float) -> None:
    dataset = marked(tmp_path, SIZES)
    samples = build(dataset, "none", mosaic, mosaic)
    for index in range(len(SIZES)):
        image, target = samples.render((3, index))
        expected, placement = letterbox(read_image(dataset.records[index].image_path), INPUT)
        np.testing.assert_array_equal(image, expected)
        assert torch.equal(target.boxes, torch.from_numpy(placement.apply(dataset.objects(index).boxes)))


def test_a_picture_that_cannot_be_cached_is_named(tmp_path: Path) -> None:
    dataset = marked(tmp_path, SIZES)
    path = dataset.records[2].image_path
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match=r"2\.jpg: cannot read the image: .*truncated"):
        build(dataset).fill_cache()
