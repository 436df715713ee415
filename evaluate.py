"""Measure weights on a split: python evaluate.py --weights last --data VOCdevkit --split VOC2007/test."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import utils.cli.packages  # noqa: F401 (says in one line if some are missing)
from utils.cli.console import log, one_line, run_command, warn
from utils.cli.evaluate_config import EvaluateConfig
from utils.cli.files import new_run_folder
from utils.cli.inputs import check_class_file
from utils.cli.parser import as_arguments, parse_config, save_args_yaml
from utils.cli.predict_config import PredictConfig

_PASSED_ON = ("weights", "phi", "cfg", "anchors", "classes", "imgsz", "tile")  # to predict.py, where given


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(_evaluate, argv)


def _evaluate(argv: list[str]) -> int:
    config = parse_config(
        EvaluateConfig,
        argv,
        prog="evaluate.py",
        description="Measure weights on a split: VOC AP and COCO AP of each class, and their means.",
        example="python evaluate.py --weights last --data VOCdevkit --split VOC2007/test",
    )
    config.check_weight_files()
    config.check_inputs()
    check_class_file(config.classes)
    return _measure(config)


def _measure(config: EvaluateConfig) -> int:
    """Measure the weights; torch is imported here, after the arguments are checked."""
    from utils.data.prepare import prepare_evaluation
    from utils.inference.evaluation import detect_dataset, match_classes, score_detections
    from utils.inference.evaluation_pictures import draw_charts, draw_worst
    from utils.inference.predictor import build_predictor
    from utils.inference.speed import describe_conditions
    from utils.metrics.coco_ap import ENGINE
    from utils.metrics.diagnose import find_correction
    from utils.weights.load import usual_class_names

    predictor = build_predictor(config)
    is_general = predictor.class_names == usual_class_names(80)  # COCO's; data have only some of them
    dataset, report, splits = prepare_evaluation(
        config, config.split, known=() if is_general else predictor.class_names
    )
    match_classes(predictor.class_names, dataset)  # fails before a folder is made
    log(f"scores from {config.conf:g}, NMS at IoU {config.nms_iou:g}, at most {config.max_det} an image")
    log(f"COCO AP by {ENGINE}")
    if config.report_conf < config.conf:
        warn(f"--report-conf {config.report_conf:g} is below --conf; reported at {config.conf:g}")
    folder = new_run_folder(config.project, config.name, config.exist_ok)
    save_args_yaml(config, folder / "args.yaml")
    found = detect_dataset(predictor, dataset, batch_size=config.batch_size, skip_bad=config.skip_bad)
    result = score_detections(
        found,
        dataset,
        skipped=report.skipped.total(),
        report_conf=max(config.report_conf, config.conf),
        weights=predictor.source.name,
        splits=splits,
    )
    result.write(folder)
    draw_charts(result, folder)
    draw_worst(result, found, dataset, folder / "worst.jpg")
    if config.json:
        result.write_metrics(Path(config.json))
    if mistake := find_correction(found.detections, found.targets, dataset.class_names):
        warn(f"{mistake}; look at {folder / 'worst.jpg'}")
    for line in (*result.table().splitlines(), *result.error_table().splitlines()):
        print(one_line(line))
    speed = "  ".join(f"{part} {value:.1f} ms" for part, value in result.speed_ms.items())
    print(f"time per image: {speed}  {describe_conditions(found.conditions)}{predictor.advise_amp()}")
    print(one_line(f"metrics.json, detections.json, ground_truth.json and charts: {folder}"))
    same = {name: getattr(config, name) for name in _PASSED_ON}
    same |= {name: getattr(config, name) or None for name in ("amp", "flip_test")}  # False would be --no-amp
    same["tile_overlap"] = None if config.tile is None else config.tile_overlap
    arguments = [str(dataset.records[0].image_path), *as_arguments(PredictConfig, same)]
    print(one_line(f"next: {shlex.join(['python', 'predict.py', *arguments])}"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
