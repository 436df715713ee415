"""Every transform of albumentations in our pipeline, its boxes checked against the pixels that it moved."""

from __future__ import annotations

import inspect
import random
from typing import Any

import albumentations as A
import numpy as np
import pytest
import torch

from utils.cli.errors import UserError
from utils.data.augmentation import Augmenter, apply_pipeline, build_box_params
from utils.data.augmentation_check import UNSUPPORTED, check_augmentation, draw_objects

H, W = 128, 96
RESIZE = A.Resize(H, W)

# Arguments of the transforms that need some, that would do little on a small image, or nothing.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "AtLeastOneBBoxRandomCrop": {"height": 100, "width": 90},
    "CenterCrop": {"height": 100, "width": 90},
    "Crop": {"x_min": 10, "y_min": 20, "x_max": 90, "y_max": 100},
    "CropAndPad": {"percent": (-0.2, 0.2)},
    "ElasticTransform": {"alpha": 60, "sigma": 8},
    "GridElasticDeform": {"num_grid_xy": (4, 4), "magnitude": 6},
    "LongestMaxSize": {"max_size": 100},
    "OpticalDistortion": {"distort_limit": 0.3},
    "Pad": {"padding": 10},
    "PadIfNeeded": {"min_height": 150, "min_width": 160},
    "RandomCrop": {"height": 90, "width": 80},
    "RandomResizedCrop": {"size": (H, W)},
    "RandomScale": {"scale_limit": 0.3},
    "RandomSizedBBoxSafeCrop": {"height": H, "width": W},
    "RandomSizedCrop": {"min_max_height": (60, 90), "size": (H, W)},
    "Resize": {"height": 90, "width": 110},
    "SmallestMaxSize": {"max_size": 80},
    "ThinPlateSpline": {"scale_range": (0.05, 0.1)},
    "XYMasking": {"num_masks_x": 2, "num_masks_y": 2, "mask_x_length": 20, "mask_y_length": 20},
}
# Pixels between a box and its object. Most transforms compute boxes from corners: half a pixel of rounding.
TOLERANCE = {
    "ElasticTransform": 1.0,  # boxes from rounded masks
    "GridDistortion": 1.0,
    "GridElasticDeform": 1.0,
    "OpticalDistortion": 1.0,
    "Perspective": 1.0,  # edges are slanted
    "PiecewiseAffine": 1.0,
    "Rotate": 1.0,
    "SafeRotate": 1.5,  # rotated, then scaled
    "ShiftScaleRotate": 1.0,
    "ThinPlateSpline": 3.0,  # boxes from a grid of points, edges are curved
}
HEAVY = ("PiecewiseAffine", "GridElasticDeform", "ThinPlateSpline", "Superpixels", "ElasticTransform")
QUICK = ("Affine", "HorizontalFlip", "Perspective", "RandomRotate90", "CoarseDropout", "CLAHE", "RandomRain")

NOTHING = "does nothing without a mask or a volume"
NEEDS = {  # transforms that cannot be used, and why
    **dict.fromkeys(("CenterCrop3D", "CoarseDropout3D", "CubicSymmetry"), "needs a volume"),
    **dict.fromkeys(("PadIfNeeded3D", "RandomCrop3D"), "needs a volume"),
    **dict.fromkeys(("Pad3D", "ToTensor3D"), NOTHING),
    **dict.fromkeys(("CropNonEmptyMaskIfExists", "MaskDropout"), "needs a mask"),
    "ConstrainedCoarseDropout": NOTHING,
    **dict.fromkeys(("FDA", "HistogramMatching", "PixelDistributionAdaptation"), "needs other images"),
    **dict.fromkeys(("Mosaic", "OverlayElements", "RandomCropNearBBox", "TextImage"), "needs other inputs"),
    **dict.fromkeys(("FromFloat", "Normalize", "ToFloat", "ToTensorV2"), "returns no uint8 image"),
    "Lambda": "needs code",
    **UNSUPPORTED,
}
BASES = ("BasicTransform", "DualTransform", "ImageOnlyTransform", "Transform3D")
ALL = {
    name: kind
    for name, kind in inspect.getmembers(A, inspect.isclass)
    if issubclass(kind, A.BasicTransform) and name not in BASES
}
USABLE = [
    name if name in QUICK else pytest.param(name, marks=pytest.mark.exhaustive)
    for name in ALL
    if name not in NEEDS
]


def build(name: str) -> A.BasicTransform:
    return ALL[name](**ARGUMENTS.get(name, {}), p=1.0)


@pytest.mark.parametrize("name", USABLE)
def test_boxes_lie_on_the_pixels_that_a_transform_moved(name: str) -> None:
    """Each of 16 objects in turn is white on gray; with one seed a transform moves all of them alike."""
    _, target = draw_objects((H, W))
    boxes = build_box_params(check_each_transform=True)
    pipeline = A.Compose([A.NoOp(), build(name)], bbox_params=boxes, is_check_shapes=False)
    if issubclass(ALL[name], A.ImageOnlyTransform):
        image, _ = draw_objects((H, W))
        pipeline.set_random_state(np.random.default_rng(0), random.Random(0))
        _, moved = apply_pipeline(pipeline, image, target, (H, W))
        np.testing.assert_allclose(moved.boxes, target.boxes, atol=1e-3)
        assert torch.equal(moved.labels, target.labels)
        assert torch.equal(moved.difficult, target.difficult)
        return
    tolerance, met = TOLERANCE.get(name, 0.51), 0
    for seed in range(1 if name in HEAVY else 3):
        for number, (x1, y1, x2, y2) in enumerate(target.boxes.int().tolist()):
            image = np.full((H, W, 3), 128, dtype=np.uint8)
            image[y1:y2, x1:x2] = 255
            pipeline.set_random_state(np.random.default_rng(seed), random.Random(seed))
            made, moved = apply_pipeline(pipeline, image, target, None)
            assert torch.equal(moved.difficult, moved.labels % 3 == 0)
            rows, columns = np.nonzero(made[..., 0] > 190)
            kept = moved.boxes[moved.labels == number]
            height, width = made.shape[:2]
            if not len(kept):  # dropped: covered, or cut off at the edge of the image
                is_cut = {*rows, *columns} & {0, height - 1, width - 1}
                assert is_cut or len(rows) < 0.3 * (x2 - x1) * (y2 - y1)
                continue
            assert len(kept) == 1
            box = kept[0].numpy()
            seen = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
            outside = np.maximum(box[:2] - seen[:2], seen[2:] - box[2:])
            assert outside.max() <= tolerance  # all of the object is in its box
            if box.min() > 1 and box[2] < width - 1 and box[3] < height - 1:  # and the box is tight
                np.testing.assert_allclose(box, seen, atol=tolerance)
            met += 1
    assert met


@pytest.mark.parametrize("name", USABLE)
def test_the_check_before_training_takes_it(name: str) -> None:
    check_augmentation(Augmenter((H, W), "mine.py:make", own=[build(name), RESIZE]))


@pytest.mark.parametrize("name", [name for name in NEEDS if NEEDS[name] not in (NOTHING, "needs code")])
def test_the_check_names_what_cannot_be_used(name: str) -> None:
    three = {"size": (8, 8, 8)}
    arguments: dict[str, dict[str, Any]] = {
        "CenterCrop3D": three,
        "RandomCrop3D": three,
        "PadIfNeeded3D": {"min_zyx": (8, 8, 8)},
        "CropNonEmptyMaskIfExists": {"height": H, "width": W},
        "TextImage": {"font_path": "gone.ttf"},
    }
    with pytest.raises(UserError, match=f"^--augment mine.py:make: {name}: "):
        check_augmentation(Augmenter((H, W), "mine.py:make", own=[ALL[name](**arguments.get(name, {}))]))
