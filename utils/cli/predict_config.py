"""Settings of predict.py."""

from __future__ import annotations

from dataclasses import dataclass

from utils.cli.errors import UserError
from utils.cli.parser import check_settings, setting
from utils.cli.shared_config import (
    AMP_HELP,
    CLASSES_HELP,
    DEVICE_HELP,
    FLOAT_BOXES_HELP,
    WEIGHTS_HELP,
    RunConfig,
    ViewsConfig,
    WeightsConfig,
    check_amp,
)

ALL_CLASSES = "all"  # what --heatmap without a value stands for


@dataclass(frozen=True)
class PredictConfig(RunConfig, ViewsConfig, WeightsConfig):
    """Settings of predict.py; raises a UserError that names the flag of an invalid value."""

    weights: str = setting("voc", WEIGHTS_HELP, metavar="FILE")
    sources: tuple[str, ...] = setting(
        (),
        "images, videos, folders, globs, .txt lists of paths, - (paths from standard input), camera numbers "
        "or URLs of images and streams",
        positional=True,
        metavar="SOURCE",
    )
    conf: float = setting(0.25, "minimum score", within="[0, 1]")
    nms_iou: float = setting(0.5, "IoU threshold of non-maximum suppression", within="[0, 1]")
    max_det: int = setting(100, "maximum detections per image", within="[1, 100000]")
    only: tuple[str, ...] | None = setting(None, "keep only these classes", metavar="NAME")
    stride: int = setting(1, "of videos and cameras, use every N-th frame", within="[1, 1000000]")
    batch_size: int = setting(1, "images per batch", within="[1, 65536]")
    device: str = setting("auto", DEVICE_HELP)
    amp: bool = setting(False, AMP_HELP)
    json: str | None = setting(
        None, "write the detections to this file, one JSON object per line", metavar="FILE", is_output=True
    )
    csv: str | None = setting(
        None, "write a table to this file, one row per detection", metavar="FILE", is_output=True
    )
    coco: str | None = setting(
        None,
        "write the detections to this file as COCO results; image_id is the number that a file name is, else "
        "the image's 1-based place; category_id is 1-based",
        metavar="FILE",
        is_output=True,
    )
    xml: str | None = setting(
        None,
        "write VOC XML to this folder, for labeling tools and train.py; may be the images' own folder",
        metavar="DIR",
    )
    txt: str | None = setting(
        None,
        "write YOLO label files to this folder: lines of class cx cy w h, and classes.txt",
        metavar="DIR",
    )
    crop: bool = setting(False, "also save each object as crops/CLASS/IMAGE_N.jpg in the run folder")
    count: bool = setting(False, "print the total number of objects per class")
    heatmap: str | None = setting(
        None,
        "also save a heat map per image: the regions that raise the scores of the detections, or of CLASS",
        bare=ALL_CLASSES,
        metavar="[CLASS]",
    )
    attention_maps: bool = setting(False, "also save the gates of the attention blocks per image")
    view: bool = setting(False, "show the results in a window; q quits")
    fps: int | None = setting(
        None, "measure the speed over N runs on the first image; writes nothing", within="[1, 1000000]"
    )
    save: bool = setting(True, "do not write images")

    classes: str | None = setting(
        None, f"{CLASSES_HELP} (default: from the weights)", group="detection", metavar="FILE"
    )
    scores: bool = setting(
        False,
        "append the score to the objects of --xml and the lines of --txt",
        group="output",
        aliases=("--txt-scores",),
    )
    float_boxes: bool = setting(False, FLOAT_BOXES_HELP, group="output")
    project: str = setting("runs/predict", "parent folder of the runs", group="output", metavar="DIR")

    def __post_init__(self) -> None:
        check_settings(self)
        self.check_weights()
        self.check_views()
        check_amp(self.amp, self.weights)
        self._check_outputs()
        if not self.sources and self.heatmap not in (None, ALL_CLASSES):
            raise UserError(
                f"SOURCE: missing; --heatmap took {self.heatmap} as its class, so write the sources first: "
                f"python predict.py {self.heatmap} --heatmap"
            )
        if not self.sources and self.only:
            raise UserError(
                f"SOURCE: missing; --only took {' '.join(self.only)}, so write the sources first: "
                f"python predict.py photo.jpg --only {self.only[0]}"
            )
        if not self.sources:
            raise UserError(
                "SOURCE: missing; name an image, a video or a folder: python predict.py photo.jpg"
            )
        if "" in self.sources:
            raise UserError("SOURCE '': is empty")

    def _check_outputs(self) -> None:
        """Check for outputs that exclude each other; the UserError names the flags."""
        asked = {"--heatmap": self.heatmap is not None, "--attention-maps": self.attention_maps}
        pictures = [flag for flag, wanted in {**asked, "--crop": self.crop}.items() if wanted]
        if not self.save and pictures:
            raise UserError(
                f"--no-save: writes no images, but {pictures[0]} asks for them; remove one of the two"
            )
        maps = [flag for flag, wanted in asked.items() if wanted]
        views = {"--tile": self.tile is not None, "--flip-test": self.flip_test}
        for flag in (flag for flag, wanted in views.items() if wanted and maps):
            raise UserError(f"{maps[0]}: explains the whole image, seen once; remove {flag}")
        files = ("json", "csv", "coco", "xml", "txt")
        unmeasured = [f"--{name}" for name in files if getattr(self, name) is not None]
        shown = {"--crop": self.crop, **asked, "--view": self.view, "--count": self.count}
        unmeasured += [flag for flag, wanted in shown.items() if wanted]
        if self.fps is not None and unmeasured:
            raise UserError(f"--fps: only measures; remove {unmeasured[0]}")
        if self.scores and self.xml is None and self.txt is None:
            raise UserError("--scores: needs --xml DIR or --txt DIR")
        if self.float_boxes and self.xml is None:
            raise UserError("--float-boxes: needs --xml DIR")
