"""Settings of predict.py."""

from __future__ import annotations

from dataclasses import dataclass

from utils.cli.errors import UserError
from utils.cli.parser import check_settings, setting
from utils.cli.shared_config import CLASSES_HELP, DEVICE_HELP, WEIGHTS_HELP, RunConfig, WeightsConfig

ALL_CLASSES = "all"  # what --heatmap without a value stands for


@dataclass(frozen=True)
class PredictConfig(RunConfig, WeightsConfig):
    """Settings of predict.py; each field's help says what it is.

    Raises:
        UserError: a value makes no sense; the message names the flag.
    """

    weights: str = setting("voc", WEIGHTS_HELP, metavar="FILE")
    sources: tuple[str, ...] = setting(
        (),
        "image, video, folder, glob, camera number or stream URL; several may be given",
        positional=True,
        nargs="*",
        metavar="SOURCE",
    )
    conf: float = setting(0.25, "lowest score shown", metavar="X", within="[0, 1]")
    nms_iou: float = setting(
        0.5, "overlap from which the weaker box of a class goes", metavar="X", within="[0, 1]"
    )
    max_det: int = setting(100, "most detections an image", metavar="N", within="[1, 100000]")
    only: tuple[str, ...] | None = setting(None, "keep these classes", nargs="+", metavar="NAME")
    batch_size: int = setting(1, "images at a time", metavar="N", within="[1, 65536]")
    device: str = setting("auto", DEVICE_HELP)
    json: str | None = setting(None, "write the detections here, a JSON object a line", metavar="FILE")
    xml: str | None = setting(
        None,
        "write VOC XML here, which labelImg opens and train.py reads; may be the images' folder",
        metavar="DIR",
    )
    txt: str | None = setting(
        None, "write YOLO's label files here: class cx cy w h a line, and classes.txt", metavar="DIR"
    )
    crop: bool = setting(False, "a picture more an object: crops/CLASS/IMAGE_N.jpg in the run's folder")
    count: bool = setting(False, "print how many objects of each class there are in all")
    heatmap: str | None = setting(
        None,
        "a picture more an image: what raises the scores of the detections, or of CLASS alone",
        nargs="?",
        bare=ALL_CLASSES,
        metavar="[CLASS]",
    )
    attention_maps: bool = setting(False, "a picture more an image: the gates of the attention blocks")
    view: bool = setting(False, "show the pictures in a window; q ends")
    fps: int | None = setting(
        None, "measure N runs on the first picture and write nothing", metavar="N", within="[1, 1000000]"
    )
    save: bool = setting(True, "write no pictures")

    classes: str | None = setting(
        None, f"{CLASSES_HELP} (default: those of the weights)", group="detection", metavar="FILE"
    )
    txt_scores: bool = setting(False, "end the lines of --txt with the score", group="output")
    project: str = setting("runs/predict", "folder of the runs", group="output", metavar="DIR")

    def __post_init__(self) -> None:
        check_settings(self)
        self.check_weights()
        self._check_outputs()
        if not self.sources and self.heatmap not in (None, ALL_CLASSES):
            raise UserError(
                f"SOURCE: nothing to look at; --heatmap took {self.heatmap} for its class, so write the "
                f"sources first: python predict.py {self.heatmap} --heatmap"
            )
        if not self.sources and self.only:
            raise UserError(
                f"SOURCE: nothing to look at; --only took {' '.join(self.only)}, so write the sources first: "
                f"python predict.py photo.jpg --only {self.only[0]}"
            )
        if not self.sources:
            raise UserError(
                "SOURCE: nothing to look at; name an image, a video or a folder: python predict.py photo.jpg"
            )
        if "" in self.sources:
            raise UserError("SOURCE '': is empty")

    def _check_outputs(self) -> None:
        """Refuse outputs that exclude each other; the UserError names the flags."""
        asked = {"--heatmap": self.heatmap is not None, "--attention-maps": self.attention_maps}
        pictures = [flag for flag, wanted in {**asked, "--crop": self.crop}.items() if wanted]
        if not self.save and pictures:
            raise UserError(
                f"--no-save: writes no pictures, and {pictures[0]} asks for one; leave one of them out"
            )
        written = {"--json": self.json, "--xml": self.xml, "--txt": self.txt, "--crop": self.crop or None}
        files = [flag for flag, place in written.items() if place is not None]
        shown = {**asked, "--view": self.view, "--count": self.count}
        unmeasured = [*files, *(flag for flag, wanted in shown.items() if wanted)]
        if self.fps is not None and unmeasured:
            raise UserError(f"--fps: measures and shows nothing; leave {unmeasured[0]} out")
        if self.txt_scores and self.txt is None:
            raise UserError("--txt-scores: there is nothing to write them into; add --txt DIR")
