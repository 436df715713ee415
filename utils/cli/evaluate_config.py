"""Settings of evaluate.py."""

from __future__ import annotations

from dataclasses import dataclass

from utils.cli.parser import setting
from utils.cli.shared_config import (
    AMP_HELP,
    CLASSES_HELP,
    DEVICE_HELP,
    DataConfig,
    RunConfig,
    ViewsConfig,
    WeightsConfig,
    check_amp,
)


@dataclass(frozen=True)
class EvaluateConfig(RunConfig, DataConfig, ViewsConfig, WeightsConfig):
    """Settings of evaluate.py; raises a UserError that names the flag of an invalid value."""

    split: tuple[str, ...] | None = setting(
        None, "splits to evaluate, such as VOC2007/test (default: test, else val)", metavar="SPLIT"
    )
    batch_size: int = setting(8, "images per batch", within="[1, 65536]")
    device: str = setting("auto", DEVICE_HELP)
    amp: bool = setting(False, AMP_HELP)
    json: str | None = setting(None, "also write metrics.json to this file", metavar="FILE", is_output=True)

    conf: float = setting(0.001, "minimum score", group="detection", within="[0, 1]")
    nms_iou: float = setting(
        0.5, "IoU threshold of non-maximum suppression", group="detection", within="[0, 1]"
    )
    max_det: int = setting(100, "maximum detections per image", group="detection", within="[1, 100000]")
    report_conf: float = setting(
        0.25,
        "score threshold of the reported precision, recall, F1 and confusion matrix",
        group="detection",
        within="[0, 1]",
    )
    classes: str | None = setting(
        None, f"{CLASSES_HELP} (default: from the weights)", group="data", metavar="FILE"
    )
    project: str = setting("runs/evaluate", "parent folder of the runs", group="output", metavar="DIR")

    def __post_init__(self) -> None:
        self.check_data()
        self.check_weights()
        self.check_views()
        check_amp(self.amp, self.weights)
