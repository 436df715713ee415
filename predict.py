"""Find objects in pictures: python predict.py photo.jpg."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from utils.classes import match_class_names
from utils.config import PredictConfig, parse_config, save_args_yaml
from utils.console import log, one_line, run_command, warn
from utils.draw import draw_detections
from utils.errors import UserError
from utils.files import atomic_write, new_run_folder
from utils.images import read_image
from utils.inference.ahead import batched, map_ahead
from utils.inference.explainer import Explainer
from utils.inference.predictor import Predictor, Prepared, Timings, build_predictor
from utils.inference.sources import find_images
from utils.inference.writers import PictureWriter, console_line, json_line, refuse_overwriting

_MOST_WARNINGS = 10
Read = tuple[Path, np.ndarray, Prepared]


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(_predict, argv)


def _predict(argv: list[str]) -> int:
    config = parse_config(
        PredictConfig,
        argv,
        prog="predict.py",
        description="Find objects in images; pictures with boxes go to the run's folder.",
        example="python predict.py street.jpg photos/ --conf 0.4 --json found.jsonl",
    )
    paths = find_images(config.sources)
    predictor = _load_predictor(config)
    explainer = Explainer(predictor, attention_maps=config.attention_maps, heatmap=config.heatmap)
    folder = new_run_folder(config.project, config.name, config.exist_ok) if config.save else None
    pictures = PictureWriter(folder, [*paths, *explainer.targets(paths)]) if folder else None
    if config.json:
        refuse_overwriting([config.json], paths)

    failures: list[UserError] = []
    with ExitStack() as stack:
        json_file = stack.enter_context(atomic_write(config.json, "w")) if config.json else None
        for batch in batched(_read(paths, predictor, failures), config.batch_size):
            timings = Timings()
            results = predictor.detect([prepared for _, _, prepared in batch], timings)
            for (path, image, prepared), found in zip(batch, results, strict=True):
                if json_file:
                    json_file.write(json_line(path, image.shape[:2], found, predictor.class_names) + "\n")
                if pictures:
                    pictures.write(path, draw_detections(image, found, predictor.class_names))
                    for target, picture in explainer.draw(path, image, prepared, found):
                        pictures.write(target, picture)
                spent = sum(timings.milliseconds().values())
                print(one_line(console_line(path, found, predictor.class_names, spent)), flush=True)
    return _finish(config, folder, failures, len(paths))


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


def _read(paths: Sequence[Path], predictor: Predictor, failures: list[UserError]) -> Iterator[Read]:
    """Yield (path, image, prepared image) of every readable file; the others are named and collected."""

    def read(path: Path) -> Read | UserError:
        try:
            image = read_image(path)
        except UserError as error:
            return error
        return path, image, predictor.prepare(image)

    for result in map_ahead(read, paths, ahead=4):  # few: a picture may have hundreds of megabytes
        if not isinstance(result, UserError):
            yield result
            continue
        failures.append(result)
        if len(paths) > 1 and len(failures) <= _MOST_WARNINGS:
            warn(f"{result}; skipped")


def _finish(config: PredictConfig, folder: Path | None, failures: Sequence[UserError], total: int) -> int:
    if folder:
        save_args_yaml(config, folder / "args.yaml")
    if len(failures) == total:
        others = f"; none of {total} images could be read" if total > 1 else ""
        raise UserError(f"{failures[0]}{others}", exit_code=1)
    if len(failures) > _MOST_WARNINGS:
        log(f"… and {len(failures) - _MOST_WARNINGS} more")
    if failures:
        log(f"skipped {len(failures)} of {total} images: unreadable")
    if config.json:
        print(one_line(f"detections: {config.json}"))
    if folder:
        print(one_line(f"pictures: {folder}"))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
