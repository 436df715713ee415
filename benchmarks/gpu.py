"""Images per second of training and evaluation on a GPU, with the real loader and without loading.

The goal is 3,000 images/s of training at 416 px in bfloat16 on one H200, as fast as without loading. Training
starts as train.py does by default: from pretrained weights with frozen batch statistics. Each row first runs
for --warmup seconds that do not count. "Waiting" is the share of the time in which the step waits for data.
Without --data, pictures of the demo are repeated until they are about as many as in VOC 2007 and 2012. The
defaults are meant to end within 4 minutes on a machine with 16 cores: python benchmarks/gpu.py
"""

from __future__ import annotations

import argparse
import copy
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain, count, product, repeat
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from nets.blocks import fold_norms
from utils.cli.console import log, run_command
from utils.cli.train_config import TrainConfig
from utils.compare.cost import describe_machine
from utils.data.dataset import VocDataset
from utils.data.demo import make_demo
from utils.data.image_cache import ImageCache
from utils.data.loader import Batch, TrainLoader
from utils.inference.device import choose_device, precision_name
from utils.inference.evaluation import detect_dataset
from utils.inference.predictor import Predictor
from utils.training.builders import (
    build_loader,
    build_model,
    build_trainer,
    cache_training_images,
    load_data,
    load_pretrained,
    prepare_process,
)
from utils.training.engine import EpochMeter, Trainer, accumulated
from utils.training.resolve import resolve_lr_and_ema

DRAWN = 200  # pictures of the demo
EVALUATION_BATCH = 32
ALONE = 1.5  # seconds of training without loading, after as many that do not count


def train_for(trainer: Trainer, batches: Iterable[Batch], seconds: float) -> tuple[float, EpochMeter]:
    """Train for so many seconds, at least one step; returns images per second and the meter."""
    meter, images, started = EpochMeter(), 0, time.perf_counter()
    for group in accumulated(batches, 1, meter):
        trainer.step(group, meter)
        images += len(group[0][0])
        if time.perf_counter() - started >= seconds:
            break
    trainer.finish_step(meter)  # waits for the last step
    return images / (time.perf_counter() - started), meter


def endless(loader: TrainLoader) -> Iterator[Batch]:
    """Yield the batches of one epoch after the other."""
    return chain.from_iterable(map(loader.epoch, count()))


def peak_memory(device: torch.device) -> str:
    """Return the peak of allocated memory on a GPU in GB since the last call."""
    if device.type != "cuda":
        return "-"
    peak = torch.cuda.max_memory_allocated(device) / 1e9
    torch.cuda.reset_peak_memory_stats(device)
    return f"{peak:.1f}"


def measure_training(
    config: TrainConfig, dataset: VocDataset, device: torch.device, options: argparse.Namespace
) -> Trainer:
    """Print a row for each combination of --cache, batch size and precision; returns the last trainer."""
    print(f"\nTraining at {config.imgsz[0]} px, {len(dataset)} images, {config.workers} workers:\n")
    print(
        "| batch | precision | --cache | images/s | waiting | without loading, images/s | peak memory, GB |"
    )
    print("|---|---|---|---|---|---|---|", flush=True)
    source = load_pretrained(config, None)
    config = resolve_lr_and_ema(config, source, dataset.class_names)
    model = build_model(config, dataset.class_names, source)
    cache: ImageCache | None = None
    for is_cached, batch_size in product((False, True), options.batch_size):
        loader = build_loader(replace(config, batch_size=batch_size), dataset, device)
        if is_cached and cache is None:
            cache_training_images(loader)
            cache = loader.dataset.image_cache
        loader.dataset.image_cache = cache
        for amp in (False, True):
            settings = replace(config, batch_size=batch_size, amp=amp)
            trainer = build_trainer(settings, copy.deepcopy(model), len(loader), len(dataset), device)
            trainer.start_epoch(freeze_backbone=False)
            peak_memory(device)
            batches = endless(loader)
            train_for(trainer, batches, options.warmup)
            speed, meter = train_for(trainer, batches, options.seconds)
            same = repeat(next(batches))
            train_for(trainer, same, min(options.warmup, ALONE))
            alone, _ = train_for(trainer, same, min(options.seconds, ALONE))
            row = (
                batch_size,
                precision_name(trainer.autocast),
                "yes" if is_cached else "no",
                f"{speed:.0f}",
                f"{meter.waited / meter.seconds:.0%}",
                f"{alone:.0f}",
                peak_memory(device),
            )
            print(f"| {' | '.join(map(str, row))} |", flush=True)
    return trainer


def measure_evaluation(trainer: Trainer, dataset: VocDataset) -> None:
    """Print a row for each precision: images per second from files to detections, and the stages' times."""
    print(f"\nEvaluation of the network trained last, {len(dataset)} images, batch {EVALUATION_BATCH}:\n")
    print("| precision | images/s | preprocess, ms | network, ms | postprocess, ms | peak memory, GB |")
    print("|---|---|---|---|---|---|", flush=True)
    model = copy.deepcopy(trainer.average).eval()
    fold_norms(model)  # as evaluate.py does
    few = VocDataset(dataset.records[: 2 * EVALUATION_BATCH], dataset.class_names)
    for amp in (False, True):
        predictor = Predictor(
            model, model.config, dataset.class_names, conf=0.001, device=trainer.device, amp=amp
        )
        detect_dataset(predictor, few, batch_size=EVALUATION_BATCH)
        peak_memory(trainer.device)
        started = time.perf_counter()
        found = detect_dataset(predictor, dataset, batch_size=EVALUATION_BATCH)
        speed = len(dataset) / (time.perf_counter() - started)
        stages = " | ".join(f"{value:.2f}" for value in found.timings.milliseconds().values())
        precision = precision_name(predictor.amp_dtype)
        print(f"| {precision} | {speed:.0f} | {stages} | {peak_memory(trainer.device)} |", flush=True)


def main(argv: list[str]) -> int:
    """Run the benchmark."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="folder in VOC layout (default: pictures of the demo)")
    parser.add_argument("--weights", default="voc")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--imgsz", type=int, default=416)
    parser.add_argument("--batch-size", type=int, nargs="+", default=[16, 64, 128])
    parser.add_argument("--workers", type=int, default=cores)
    parser.add_argument("--images", type=int, default=16384, help="repeated if there are fewer")
    parser.add_argument("--evaluated", type=int, default=2048, help="images of the evaluation")
    parser.add_argument("--warmup", type=float, default=2.5, help="seconds of each row that do not count")
    parser.add_argument("--seconds", type=float, default=4.0, help="seconds of each row that count")
    options = parser.parse_args(argv)
    device = choose_device(options.device)
    with tempfile.TemporaryDirectory() as folder:
        log("drawing pictures" if options.data is None else "reading annotations")
        data = options.data or str(make_demo(Path(folder, "demo"), train=DRAWN, val=1, test=1))
        config = TrainConfig(
            data=data,
            val=("none",),
            weights=options.weights,
            imgsz=(options.imgsz, options.imgsz),
            device=options.device,
            workers=options.workers,
        )
        prepare_process(config, device, None)
        once = load_data(config).train
        repeated = (once.records * -(-options.images // len(once)))[: options.images]
        dataset = VocDataset(repeated, once.class_names)
        print(*describe_machine(), f"`{shlex.join(['python', 'benchmarks/gpu.py', *argv])}`", sep="\n")
        trainer = measure_training(config, dataset, device, options)
        measure_evaluation(trainer, VocDataset(repeated[: options.evaluated], once.class_names))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
