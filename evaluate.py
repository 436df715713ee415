"""Measure weights on a split: python evaluate.py --weights last --data VOCdevkit --split VOC2007/test."""

from __future__ import annotations

import sys
from pathlib import Path

from utils.classes import read_class_names
from utils.config import EvaluateConfig, parse_config, save_args_yaml
from utils.console import log, one_line, run_command
from utils.data.load import load_evaluation_data
from utils.files import new_run_folder
from utils.inference.evaluate import evaluate, write_json
from utils.inference.predictor import Predictor


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    return run_command(_evaluate, argv)


def _evaluate(argv: list[str]) -> int:
    config = parse_config(
        EvaluateConfig,
        argv,
        prog="evaluate.py",
        description="Measure weights on a split: VOC AP, COCO AP, a table a class, and the files to compute more from.",
        example="python evaluate.py --weights last --data VOCdevkit --split VOC2007/test",
    )
    predictor = Predictor.from_checkpoint(
        config.weights,
        classes=read_class_names(config.classes) if config.classes else None,
        phi=config.phi,
        device=config.device,
        conf=config.conf,
        nms_iou=config.nms_iou,
        max_det=config.max_det,
        input_size=config.imgsz,
    )
    log(predictor.describe())
    dataset, splits = load_evaluation_data(config)
    log(f"{len(dataset)} images of {', '.join(splits)}; detections from a score of {config.conf:g}, at most {config.max_det} an image")
    folder = new_run_folder(config.project, config.name, config.exist_ok)
    save_args_yaml(config, folder / "args.yaml")
    result = evaluate(
        predictor,
        dataset,
        batch_size=config.batch_size,
        skip_bad=config.skip_bad,
        weights=predictor.source.name,
        splits=splits,
    )
    result.write(folder)
    if config.json:
        write_json(result.as_dict(), Path(config.json), indent=1)
    print(one_line_each(result.table()))
    speed = "  ".join(f"{part} {value:.1f} ms" for part, value in result.speed_ms.items())
    print(f"an image: {speed}")
    print(one_line(f"metrics.json, detections.json, ground_truth.json: {folder}"))
    print(one_line(f"next: python predict.py PICTURE --weights {config.weights}"))
    return 0


def one_line_each(text: str) -> str:
    """Return the text with control characters made visible in each of its lines (a class name may hold them)."""
    return "\n".join(map(one_line, text.split("\n")))


if __name__ == "__main__":
    sys.exit(main())
