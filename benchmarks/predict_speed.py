"""Milliseconds per image of each runtime, interleaved in one run, beside plain PyTorch.

Each runtime does the same work: the network alone on one batch, and everything from the file to boxes in its
pixels. "eager" is the network as it was trained, in NCHW layout. It runs twice: the ratio of the two (A/A)
shows how far the other ratios can be trusted (0.95 to 1.05). For results/predict_speed.md:

    python benchmarks/predict_speed.py --data $DATA/VOCdevkit
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import importlib.metadata
import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from nets.blocks import fold_norms
from utils.cli.console import run_command
from utils.cli.shared_config import DataConfig
from utils.compare.cost import describe_machine
from utils.data.prepare import prepare_evaluation, prepare_splits
from utils.export.exporter import FORMATS
from utils.export.job import Calibration, ExportJob, Quantization
from utils.inference.predictor import Predictor
from utils.inference.runtimes import load_exported
from utils.inference.speed import describe_conditions, measure_speed
from utils.vision.image_reader import read_image
from utils.weights.load import load_model

PACKAGES = ("onnxruntime", "openvino", "ncnn", "opencv-python-headless")
PICTURES = 16
PAUSE = 0.1  # seconds


class Called(nn.Module):
    """A function that maps images (B, 3, H, W) in [0, 1] to raw maps, as a module."""

    def __init__(self, function: Callable[[Tensor], list[Tensor]]) -> None:
        super().__init__()
        self.forward = function


def build_ways(job: ExportJob, folder: Path, batch: int, quantization: Quantization) -> dict[str, nn.Module]:
    """Return the runtimes by name, as modules that map images to raw maps."""
    folded = copy.deepcopy(job.model)
    fold_norms(folded)
    eager = Called(lambda images: job.model(images.contiguous()))  # NCHW, whatever the images have
    ways: dict[str, nn.Module] = {
        "eager": eager,
        "eager again": eager,
        "channels last": copy.deepcopy(job.model),
        "ours: channels last, folded": folded,
        "torch.compile of ours": torch.compile(copy.deepcopy(folded)),
    }
    sized = dataclasses.replace(job, batch=batch)
    exports = {
        "ONNX Runtime": ("onnx", sized),
        "OpenVINO": ("openvino", sized),
        "ONNX Runtime, int8": ("onnx", dataclasses.replace(sized, quantization=quantization)),
        **({"ncnn": ("ncnn", sized)} if batch == 1 else {}),
        "OpenCV DNN": ("darknet", sized),
    }
    for name, (form, export) in exports.items():
        place = folder / name.replace(" ", "_") / str(batch)
        place.mkdir(parents=True)
        path = FORMATS[form].write(export, place)[0]
        if form == "darknet":
            ways[name] = Called(FORMATS[form].runners(export, path)[-1].run)
        else:
            ways[name] = load_exported(path, device="cpu")
    return ways


def interleaved(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, np.ndarray]:
    """Return the milliseconds of each runtime in each round, the fastest of three runs.

    Before each runtime there is a pause and an uncounted run, since threads of the last one spin for a while.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, run in ways.items():
            time.sleep(PAUSE)
            run()
            runs = []
            for _ in range(3):
                start = time.perf_counter()
                run()
                runs.append(time.perf_counter() - start)
            seconds[name].append(min(runs))
    return {name: 1000 * np.array(values) for name, values in seconds.items()}


def print_table(measured: Sequence[dict[str, np.ndarray]], batch: int) -> None:
    """Print medians and ratios to eager as a table: the network alone, and from the file to boxes."""
    print(f"\nBatch of {batch}, float32 unless named otherwise:\n")
    print("| runtime | network, ms | times eager | file to boxes, ms | times eager |\n|---|---|---|---|---|")
    for name in measured[0]:
        cells = []
        for times in measured:
            ratio = np.median(times["eager"] / times[name])
            cells.append(f"{np.median(times[name]) / batch:.1f} | {ratio:.2f}")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def measure(
    job: ExportJob, paths: Sequence[Path], ways: dict[str, nn.Module], batch: int, rounds: int
) -> None:
    """Measure all runtimes at one batch size, and print the table."""
    images = torch.rand(batch, 3, *job.config.input_size, generator=torch.Generator().manual_seed(0))
    layouts = {name: images for name in ways}
    for name in ("channels last", "ours: channels last, folded", "torch.compile of ours"):
        layouts[name] = images.contiguous(memory_format=torch.channels_last)
    predictors = {name: Predictor(way, job.config, job.class_names) for name, way in ways.items()}
    batches = [list(paths[at : at + batch]) for at in range(0, len(paths) - batch + 1, batch)]
    turns = {name: itertools.cycle(batches) for name in ways}

    def predict(name: str) -> None:
        predictors[name](next(turns[name]), batch_size=batch)

    with torch.no_grad():
        network = interleaved({name: lambda name=name: ways[name](layouts[name]) for name in ways}, rounds)
    whole = interleaved({name: lambda name=name: predict(name) for name in ways}, rounds)
    print_table((network, whole), batch)


def print_parts(job: ExportJob, model: nn.Module, paths: Sequence[Path], rounds: int) -> None:
    """Print the times of pre- and postprocessing beside the default network, image by image."""
    conditions = Predictor(model, job.config, job.class_names).speed_conditions(batch_size=1)
    print(f"\n{describe_conditions(conditions)}")
    print("\n| conf | preprocess, ms | network, ms | postprocess, ms | both, of the network |")
    print("|---|---|---|---|---|")
    for conf in (0.25, 0.001):
        predictor = Predictor(model, job.config, job.class_names, conf=conf)
        tables = [measure_speed(predictor, read_image(path), runs=max(rounds // 4, 1)) for path in paths]
        before, network, after, _ = np.median(np.concatenate(tables), axis=0)
        share = 100 * (before + after) / network
        print(f"| {conf} | {before:.2f} | {network:.2f} | {after:.2f} | {share:.0f} % |", flush=True)


def main(argv: list[str]) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", default="coco")
    parser.add_argument("--imgsz", type=int, default=416)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--data", required=True, help="images to predict and to calibrate int8 on")
    options = parser.parse_args(argv)
    loaded = load_model(options.weights)
    config = dataclasses.replace(loaded.config, input_size=(options.imgsz, options.imgsz))
    job = ExportJob(loaded.model, config, loaded.class_names, loaded.path)
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    print(*describe_machine(), versions, sep="\n")
    print(f"{options.weights}, {options.imgsz}x{options.imgsz}, median of {options.rounds} rounds")
    data = DataConfig(options.data)
    paths = [record.image_path for record in prepare_evaluation(data)[0].records[:PICTURES]]
    calibration = Calibration(prepare_splits(data)[0], config.input_size)
    quantization = Quantization(calibration, lambda model: 0.0)
    with tempfile.TemporaryDirectory() as folder:
        for batch in options.batch:
            ways = build_ways(job, Path(folder), batch, quantization)
            measure(job, paths, ways, batch, options.rounds)
        print_parts(job, ways["ours: channels last, folded"], paths, options.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
