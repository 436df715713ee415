"""Find objects in pictures and videos: python predict.py photo.jpg."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from utils.cli.class_names import match_class_names
from utils.cli.console import log, one_line, run_command
from utils.cli.errors import UserError
from utils.cli.parser import parse_config
from utils.cli.predict_config import PredictConfig
from utils.cli.signals import StopSignals
from utils.inference.explainer import Explainer
from utils.inference.frames import Failures
from utils.inference.outputs import Outputs
from utils.inference.predictor import Predictor, Timings, build_predictor
from utils.inference.prefetch import batched
from utils.inference.sources import Source, find_sources
from utils.inference.speed import measure_speed, speed_table
from utils.inference.streams import open_streams
from utils.inference.window import View


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(_predict, argv)


def _predict(argv: list[str]) -> int:
    config = parse_config(
        PredictConfig,
        argv,
        prog="predict.py",
        description="Find objects in images and videos; both go to the run's folder with boxes drawn.",
        example="python predict.py street.jpg photos/ --conf 0.4 --json found.jsonl",
    )
    signals = StopSignals()
    # First, as it fails on most servers.
    view = View(lambda: signals.requested is not None) if config.view else None
    sources = find_sources(config.sources)
    predictor = _load_predictor(config)
    if config.fps is not None:
        return _measure(config, sources, predictor)
    explainer = Explainer(predictor, attention_maps=config.attention_maps, heatmap=config.heatmap)
    outputs = Outputs(config, sources, predictor, explainer, view)
    is_only_images = all(source.kind == "image" for source in sources)
    failures = Failures(len(sources), "images" if is_only_images else "sources")
    with signals, signals.deferred(), outputs:
        for stream in signals.interruptible(open_streams(sources, failures)):
            with outputs.of(stream):
                for batch in signals.interruptible(batched(stream.frames(predictor), config.batch_size)):
                    timings = Timings()
                    results = predictor.detect([frame.prepared for frame in batch], timings)
                    for frame, found in zip(batch, results, strict=True):
                        outputs.write(frame, found, sum(timings.milliseconds().values()))
                    if outputs.is_closed:
                        break
            if outputs.is_closed:
                break
        status = failures.conclude()
    outputs.conclude()
    return status


def _measure(config: PredictConfig, sources: Sequence[Source], predictor: Predictor) -> int:
    """Print what the first picture takes."""
    failures = Failures(len(sources))
    for stream in open_streams(sources, failures):
        for frame in stream.frames(predictor):
            found = measure_speed(predictor, frame.image, runs=config.fps or 1, batch_size=config.batch_size)
            print(speed_table(found, one_line(f"{frame.name}  {config.fps} runs  batch {config.batch_size}")))
            return 0
    return failures.conclude()


def _load_predictor(config: PredictConfig) -> Predictor:
    predictor = build_predictor(config)
    log(predictor.describe())
    if config.only is None:
        return predictor
    return predictor.limited_to(_labels(config.only, predictor.class_names))


def _labels(only: Sequence[str], class_names: Sequence[str]) -> list[int]:
    labels = match_class_names(class_names, only)
    missing = [name for name, label in zip(only, labels, strict=True) if label is None]
    if missing:
        raise UserError(f"--only {', '.join(missing)}: not among the classes {', '.join(class_names)}")
    return [label for label in labels if label is not None]


if __name__ == "__main__":
    sys.exit(main())
