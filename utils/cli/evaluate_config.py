"""Settings of evaluate.py."""

from __future__ import annotations

from dataclasses import dataclass

from utils.cli.parser import setting
from utils.cli.shared_config import CLASSES_HELP, DEVICE_HELP, DataConfig, RunConfig, WeightsConfig


@dataclass(frozen=True)
class EvaluateConfig(RunConfig, DataConfig, WeightsConfig):
    """Settings of evaluate.py; each field's help says what it is.

    Raises:
        UserError: a value makes no sense; the message names the flag.
    """

    split: tuple[str, ...] | None = setting(
        None, "splits to evaluate, such as VOC2007/test (default: test, else val)", nargs="+", metavar="SPLIT"
    )
    batch_size: int = setting(8, "images at a time", metavar="N", within="[1, 65536]")
    device: str = setting("auto", DEVICE_HELP)
    json: str | None = setting(None, "write a copy of metrics.json here", metavar="FILE")

    conf: float = setting(0.001, "lowest score that counts", group="detection", metavar="X", within="[0, 1]")
    nms_iou: float = setting(
        0.5,
        "overlap from which the weaker box of a class goes",
        group="detection",
        metavar="X",
        within="[0, 1]",
    )
    max_det: int = setting(
        100, "most detections an image", group="detection", metavar="N", within="[1, 100000]"
    )
    report_conf: float = setting(
        0.25,
        "score at which precision, recall, F1 and the confusion matrix are reported",
        group="detection",
        metavar="X",
        within="[0, 1]",
    )
    classes: str | None = setting(
        None, f"{CLASSES_HELP} (default: those of the weights)", group="data", metavar="FILE"
    )
    project: str = setting("runs/evaluate", "folder of the runs", group="output", metavar="DIR")

    def __post_init__(self) -> None:
        self.check_data()
        self.check_weights()
