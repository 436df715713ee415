"""mAP of the same predictions under greedy NMS by IoU, by Darknet's DIoU, and under soft-NMS.

    python benchmarks/suppression.py --weights voc --data VOCdevkit --split VOC2007/test

The arguments are those of evaluate.py. The interval is that of the difference to the first row's mAP50, over
1000 draws of the images, the same ones for every row.

DIoU-NMS: https://arxiv.org/abs/1911.08287, as Darknet's box_diounms: IoU - (d^2 / c^2)^0.6, with d the
distance of the centers and c the diagonal of the box around both. Soft-NMS: https://arxiv.org/abs/1704.04503.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from nets.boxes import box_iou
from nets.structures import Detections, Target
from utils.cli.console import progress, run_command
from utils.cli.evaluate_config import EvaluateConfig
from utils.cli.parser import parse_config
from utils.data.dataset import VocDataset
from utils.data.prepare import prepare_evaluation
from utils.data.targets import build_target
from utils.inference.evaluation import DatasetDetections, EvalResult, match_classes, score_detections
from utils.inference.predictor import Predictor, Timings, build_predictor
from utils.metrics.interval import percentile_interval
from utils.weights.load import usual_class_names

BETA = 0.6
MAX_CANDIDATES = 3000  # a picture
Similarity = Callable[[Tensor, Tensor], Tensor]
Rule = Callable[
    [Tensor, Tensor], tuple[Tensor, Tensor]
]  # boxes (N, 4), scores (N,) -> rows kept, their scores


def diou(boxes: Tensor, others: Tensor) -> Tensor:
    """Return Darknet's DIoU of each pair, Tensor[N, M]."""
    first, second = boxes[:, None], others[None]
    low, high = torch.minimum(first, second)[..., :2], torch.maximum(first, second)[..., 2:]
    centers = (first[..., :2] + first[..., 2:] - second[..., :2] - second[..., 2:]) / 2
    penalty = (centers.square().sum(-1) / (high - low).square().sum(-1)) ** BETA
    return box_iou(boxes, others) - penalty


def greedy(similarity: Similarity, threshold: float) -> Rule:
    """Return greedy NMS of one class."""

    def suppress(boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        conflicts = (similarity(boxes, boxes) > threshold).numpy()
        free, kept = ~torch.zeros(len(boxes), dtype=torch.bool).numpy(), []
        for row in scores.argsort(descending=True, stable=True).tolist():
            if free[row]:
                kept.append(row)
                free &= ~conflicts[row]
        return torch.tensor(kept), scores[kept]

    return suppress


def soft(threshold: float | None = None, sigma: float = 0.5) -> Rule:
    """Return soft-NMS of one class: linear above a threshold, else Gaussian."""

    def suppress(boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        overlaps, left, kept, values = box_iou(boxes, boxes), scores.clone(), [], []
        for _ in range(len(boxes)):
            score, row = left.max(dim=0)
            if score < 0.001:
                break
            kept.append(int(row))
            values.append(float(score))
            iou = overlaps[row]
            decay = torch.exp(-iou.square() / sigma) if threshold is None else 1 - iou * (iou > threshold)
            left *= decay
            left[row] = 0
        return torch.tensor(kept, dtype=torch.long), torch.tensor(values)

    return suppress


RULES = {
    "IoU 0.5": greedy(box_iou, 0.5),
    "IoU 0.45": greedy(box_iou, 0.45),
    "IoU 0.55": greedy(box_iou, 0.55),
    "IoU 0.6": greedy(box_iou, 0.6),
    "DIoU 0.4": greedy(diou, 0.4),
    "DIoU 0.45": greedy(diou, 0.45),
    "DIoU 0.5": greedy(diou, 0.5),
    "soft, linear 0.5": soft(0.5),
    "soft, Gaussian 0.5": soft(),
}


@torch.no_grad()
def predict_candidates(
    predictor: Predictor, dataset: VocDataset, conf: float, labels: list[int]
) -> tuple[list[Detections], list[Target]]:
    """Return all predictions above a score, in pixels of the images and with labels of the data; targets."""
    found, targets = [], []
    for index in progress(range(len(dataset)), "predict"):
        prepared = predictor.prepare(dataset.read(index))
        with predictor.evaluation_mode:
            boxes, scores = predictor.decode(predictor.model(predictor.to_input([prepared])))
        kept = scores[0][:, labels]
        rows, columns = (kept >= conf).nonzero(as_tuple=True)
        values, order = kept[rows, columns].sort(descending=True, stable=True)
        order = order[:MAX_CANDIDATES]
        undone = torch.from_numpy(prepared.placement.undo(boxes[0, rows[order]].numpy()))
        inside = (undone[:, 2:] > undone[:, :2]).all(dim=1)
        found.append(Detections(undone, values[:MAX_CANDIDATES], columns[order])[inside])
        targets.append(build_target(dataset, index))
    return found, targets


def suppress_classes(rule: Rule, found: Detections) -> Detections:
    """Apply a rule to each class, and keep the best 100."""
    parts = []
    for label in found.labels.unique():
        boxes, scores = found.boxes[found.labels == label], found.scores[found.labels == label]
        kept, values = rule(boxes, scores)
        parts.append(Detections(boxes[kept], values, label.expand(len(kept))))
    if not parts:
        return found
    joined = Detections(*(torch.cat([getattr(p, n) for p in parts]) for n in ("boxes", "scores", "labels")))
    return joined[joined.scores.argsort(descending=True, stable=True)[:100]]


def main(argv: list[str]) -> int:
    """Print the table."""
    config = parse_config(
        EvaluateConfig, argv, prog="suppression.py", description="Compare suppressions.", example=""
    )
    predictor = build_predictor(config)
    known = predictor.class_names if predictor.class_names != usual_class_names(80) else ()
    dataset, _, _ = prepare_evaluation(config, config.split, known=known)
    labels = match_classes(predictor.class_names, dataset)
    candidates, targets = predict_candidates(predictor, dataset, config.conf, labels)
    first: EvalResult | None = None
    print("| suppression | mAP50 | difference, 95 % interval | mAP50-95 |\n|---|---|---|---|")
    for name, rule in RULES.items():
        detections = [suppress_classes(rule, one) for one in candidates]
        result = score_detections(
            DatasetDetections([*range(len(dataset))], detections, targets, Timings(), ""), dataset
        )
        first = first or result
        pairs = zip(result.map50_draws, first.map50_draws, strict=True)
        low, high = percentile_interval([ours - theirs for ours, theirs in pairs]) or (math.nan, math.nan)
        print(
            f"| {name} | {result.coco.map50:.4f} | {result.coco.map50 - first.coco.map50:+.4f} "
            f"({low:+.4f} to {high:+.4f}) | {result.coco.map50_95:.4f} |",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main, None))
