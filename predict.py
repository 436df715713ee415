"""Detect objects in images, videos and streams: python predict.py photo.jpg."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import utils.cli.packages  # noqa: F401 (says in one line if some are missing)
from utils.cli.console import run_command
from utils.cli.parser import parse_config
from utils.cli.predict_config import PredictConfig
from utils.cli.signals import StopSignals

if TYPE_CHECKING:
    from utils.inference.sources import Source


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(_predict, argv)


def _predict(argv: list[str]) -> int:
    config = parse_config(
        PredictConfig,
        argv,
        prog="predict.py",
        description="Detect objects in images and videos and draw boxes around them.",
        example="python predict.py street.jpg photos/ --conf 0.4 --json found.jsonl",
    )
    from utils.inference.sources import find_sources  # after parsing, as it imports urllib and ssl

    sources = find_sources(config.sources)
    config.check_weight_files()
    return _detect(config, sources)


def _detect(config: PredictConfig, sources: list[Source]) -> int:
    """Detect objects in all sources; torch is imported here, after the arguments are checked."""
    from utils.inference.outputs import Outputs, Window
    from utils.inference.predictor import Timings, build_predictor
    from utils.inference.prefetch import batched
    from utils.inference.speed import print_speed
    from utils.inference.streams import Failures, open_streams

    signals = StopSignals()
    # First, as most servers have no screen.
    window = Window(lambda: signals.requested is not None) if config.view else None
    predictor = build_predictor(config)
    if config.fps is not None:
        return print_speed(predictor, sources, runs=config.fps, batch_size=config.batch_size)
    outputs = Outputs(config, sources, predictor, window)
    failures = Failures(sources)
    with signals, signals.deferred(), outputs:
        for stream in signals.interruptible(open_streams(sources, failures, config.stride)):
            with outputs.of(stream):
                for batch in signals.interruptible(batched(stream.frames(predictor), config.batch_size)):
                    timings = Timings()
                    outputs.announce_tiles(batch)
                    with signals.at_once():  # a large image may have hundreds of tiles
                        results = predictor.detect([frame.prepared for frame in batch], timings)
                    for frame, detections in zip(batch, results, strict=True):
                        outputs.write(frame, detections, sum(timings.milliseconds().values()))
                    if outputs.is_closed:
                        break
            if outputs.is_closed:
                break
        status = failures.conclude()
    outputs.conclude()
    return status


if __name__ == "__main__":
    sys.exit(main())
