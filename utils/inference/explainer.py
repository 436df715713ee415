"""The pictures that --attention-maps and --heatmap add to a prediction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from nets.structures import Detections
from utils.cli.class_names import match_class_names
from utils.cli.console import log, one_line
from utils.cli.errors import UserError
from utils.cli.predict_config import ALL_CLASSES
from utils.inference.explain import attention_gates, find_gated_blocks, heat_map
from utils.inference.predictor import Predictor, Prepared
from utils.inference.runtimes.runtime import Backend
from utils.vision.heatmap import draw_gates, draw_heat
from utils.vision.image_reader import Pixels


class Explainer:
    """Draws for each image why the network answers as it does; draws nothing where nobody asks for it."""

    def __init__(self, predictor: Predictor, *, attention_maps: bool, heatmap: str | None) -> None:
        """Check what is asked for, and log which attention blocks cannot be drawn.

        Args:
            predictor: what makes the detections.
            attention_maps: draw the gates of the attention blocks.
            heatmap: the class whose detections a heat map explains, "all" for every one; None for no map.

        Raises:
            UserError: the network has no attention, or no such class, or it is run by another runtime.
        """
        if isinstance(predictor.model, Backend) and (attention_maps or heatmap is not None):
            flag = "--attention-maps" if attention_maps else "--heatmap"
            raise UserError(
                f"{flag}: looks into the network, which {predictor.model.name} does not show; "
                f"give the weights that {predictor.source} was exported from"
            )
        self._predictor = predictor
        self._gates = False
        self._labels = None if heatmap is None else _labels_of(heatmap, predictor.class_names)
        self._wanted = "object" if heatmap in (None, ALL_CLASSES) else heatmap
        if attention_maps:
            blocks, lines = find_gated_blocks(predictor.model)
            self._gates = bool(blocks)
            for line in lines:
                log(line)

    def targets(self, sources: Sequence[Path]) -> list[Path]:
        """List what `draw` may give for the sources, for PictureWriter to choose names."""
        kinds = ["attention"] * self._gates + ["heatmap"] * (self._labels is not None)
        return [_picture_of(source, kind) for source in sources for kind in kinds]

    def draw(
        self, path: Path, image: Pixels, prepared: Prepared, found: Detections
    ) -> Iterator[tuple[Path, Pixels]]:
        """Yield each picture of an image with its target, and log where there is nothing to explain.

        Args:
            path: the image's file.
            image: uint8 (H, W, 3) in RGB.
            prepared: the image as the network takes it.
            found: all that was found in it, in its pixels.
        """
        if self._gates:
            gates = attention_gates(self._predictor, prepared)
            yield _picture_of(path, "attention"), draw_gates(image, gates)
        if self._labels is None:
            return
        chosen = found[torch.isin(found.labels, torch.tensor(self._labels))]
        if not len(chosen):
            log(one_line(f"{path}: no {self._wanted} found, so there is no heat map"))
            return
        heat = heat_map(self._predictor, prepared, chosen)
        if not heat.any():
            log(one_line(f"{path}: the heat map is empty, as no part of the image raises the scores further"))
        yield _picture_of(path, "heatmap"), draw_heat(image, heat, chosen, self._predictor.class_names)


def _labels_of(heatmap: str, class_names: Sequence[str]) -> list[int]:
    if heatmap == ALL_CLASSES:
        return list(range(len(class_names)))
    label = match_class_names(class_names, [heatmap])[0]
    if label is None:
        hint = "; sources stand before --heatmap" if Path(heatmap).exists() else ""
        raise UserError(f"--heatmap {heatmap}: not among the classes {', '.join(class_names)}{hint}")
    return [label]


def _picture_of(source: Path, kind: str) -> Path:
    """Name a further picture for PictureWriter: below the source's file, where no source can be."""
    return source / f"{source.stem}_{kind}.jpg"
