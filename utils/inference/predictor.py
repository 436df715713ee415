"""Predictor: images to detections, for prediction, evaluation and validation during training.

`Predictor.prepare` letterboxes an image, `detect` runs the network on a batch, decodes its raw maps
(nets/decode.py), suppresses overlapping boxes (nets/postprocess.py) and maps the rest back to image pixels.
"""

from __future__ import annotations

import copy
import operator
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from nets.blocks import fold_norms
from nets.config import ModelConfig
from nets.decode import cached_priors, decode, grids_of
from nets.postprocess import MAX_CANDIDATES, postprocess
from nets.structures import Detections
from utils.cli.class_names import match_class_names, read_class_names
from utils.cli.console import log, plural, progress, warn
from utils.cli.errors import UserError
from utils.cli.evaluate_config import EvaluateConfig
from utils.cli.predict_config import PredictConfig
from utils.inference.device import autocast_dtype, choose_device, has_fast_bfloat16, precision_name
from utils.inference.evaluation_mode import EvaluationMode
from utils.inference.image_input import ImageInput, as_array, is_one_image, to_batch, to_tensor
from utils.inference.prefetch import batched
from utils.inference.runtimes import ExportedModel, OpenVinoModel, is_exported, load_exported
from utils.inference.tiles import CUT_WEIGHT, Tile, find_cut, merge, tile_grid
from utils.vision.draw import draw_detections
from utils.vision.letterbox import Placement, letterbox
from utils.weights.load import LoadedModel, load_model

_TILES_AT_A_TIME = 8  # in the network, unless the batch is larger; bounds the memory
_MANY_TILES = 64  # from here on their progress is shown


@dataclass
class Timings:
    """Seconds spent on each stage, over `images` images.

    Preprocess: the letterbox. Network: the upload and the forward pass. Postprocess: decoding, suppression
    and boxes in pixels of the image. Reading and decoding of files is not counted.
    """

    images: int = 0
    preprocess: float = 0.0
    network: float = 0.0
    postprocess: float = 0.0

    def milliseconds(self) -> dict[str, float]:
        """Return the mean milliseconds per image of each stage."""
        scale = 1000 / max(self.images, 1)
        return {
            name: round(scale * getattr(self, name), 3) for name in ("preprocess", "network", "postprocess")
        }


@dataclass(frozen=True)
class Prepared:
    """An image as the network takes it."""

    pixels: Tensor  # Tensor[3, H, W] uint8, letterboxed to the input size
    placement: Placement  # where the image lies in the input
    seconds: float  # the time that preparing took
    # Its tiles, each with its pixels, uint8 (H, W, 3) in RGB, which share the image's memory.
    tiles: Sequence[tuple[Tile, np.ndarray]] = ()


class Predictor:
    """A detector that is called with images and returns Detections in their pixels.

    Attributes:
        config: defines the network.
        class_names: the name of each label.
        input_size: (height, width) of the network's input in pixels.
        evaluation_mode: the context for calling `model` itself.
        device: where the network runs; images and detections are on the CPU.
        amp_dtype: the number type of mixed precision, None for float32.
        source: the file that the weights came from, None for a network in memory.
        names_from: the .names file beside it that has the class names, None without.
        tile_size: (height, width) of the tiles of a larger image, None without tiles.
    """

    source: Path | None = None
    names_from: Path | None = None

    def __init__(
        self,
        model: nn.Module,
        config: ModelConfig,
        class_names: Sequence[str],
        *,
        conf: float = 0.25,
        nms_iou: float = 0.5,
        max_det: int = 100,
        input_size: tuple[int, int] | None = None,
        device: torch.device | str = "cpu",
        amp: bool = False,
        tile: int | None = None,
        tile_overlap: float = 0.2,
        flip_test: bool = False,
    ) -> None:
        """Move a network to the device; during each call it is in evaluation mode.

        Args:
            model: maps images (B, 3, H, W) in [0, 1] to the raw maps that `decode` understands.
            config: the config it was built from.
            class_names: one name per class.
            conf: minimum score of a detection.
            nms_iou: of two boxes of one class with a higher IoU, the one with the lower score is removed.
            max_det: maximum number of detections per image.
            input_size: (height, width), multiples of 32; None is the config's.
            device: where to compute.
            amp: mixed precision: the network computes in bfloat16, or in float16 on a GPU without bfloat16;
                boxes, scores and suppression stay in float32. An exported model has its own setting.
            tile: a larger image is also detected in square tiles of so many pixels; 0 for tiles of the input
                size. See utils/inference/tiles.py.
            tile_overlap: share of a tile's side that neighbors have in common, from 0 to 0.9.
            flip_test: also detect in the mirrored image, which takes twice the time.

        Raises:
            ValueError: an argument makes no sense; the message names it.
        """
        if isinstance(class_names, str):
            raise ValueError(f"class_names must be a list of names, got the text {class_names!r}")
        if len(class_names) != config.num_classes:
            raise ValueError(f"class_names must hold {config.num_classes} names, got {len(class_names)}")
        _check_arguments(conf, nms_iou, max_det, tile, tile_overlap)
        self.device = torch.device(device)
        self.model = model.to(self.device)
        self.evaluation_mode = EvaluationMode(self.model)
        self.amp_dtype = (
            model.amp_dtype if isinstance(model, ExportedModel) else autocast_dtype(amp, self.device)
        )
        self.config = config
        self.class_names = tuple(class_names)
        self.conf, self.nms_iou, self.max_det = conf, nms_iou, max_det
        self.input_size = _check_input_size(config, input_size)
        self.tile_size = None if tile is None else (tile, tile) if tile else self.input_size
        self.tile_overlap, self.flip_test = tile_overlap, flip_test
        self._unwanted: Tensor | None = None  # Tensor[K] bool, classes that are never returned

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path,
        *,
        classes: Sequence[str] | Path | None = None,
        phi: str | None = None,
        cfg: str | Path | None = None,
        anchors: str | Path | None = None,
        device: str | torch.device = "auto",
        amp: bool = False,
        conf: float = 0.25,
        nms_iou: float = 0.5,
        max_det: int = 100,
        input_size: tuple[int, int] | None = None,
        tile: int | None = None,
        tile_overlap: float = 0.2,
        flip_test: bool = False,
    ) -> Predictor:
        """Load a predictor from weights, whose file defines network, classes, anchors and input size.

        `path` is a .pth, .weights, .onnx, .xml or .param file, "coco", "voc" or "last"; `classes` names the
        classes of a file without names, as a list or as a text file of them; `phi` confirms a block of the
        user's own, whose code is only then imported; `cfg` is the Darknet .cfg of a .weights file, by default
        the one beside it; `anchors` is an anchor file for weights that do not say their anchors (the log then
        names those in use); `device` is "auto", "cpu", "cuda", "cuda:1" or "mps";
        the rest is as in the constructor.

        Raises:
            UserError: a file cannot be loaded, there is no such device, or `amp` is not for this format.
            ValueError: as in the constructor.
        """
        _check_arguments(conf, nms_iou, max_det, tile, tile_overlap)
        if not isinstance(path, (str, Path)):
            raise ValueError(f"path must be a file, coco, voc or last, got {type(path).__name__}")
        if isinstance(classes, (str, Path)):
            classes = read_class_names(classes)
        elif not (classes is None or isinstance(classes, Sequence)):
            raise ValueError(f"classes must be a list of names or a text file, got {type(classes).__name__}")
        names, device = None if classes is None else tuple(classes), str(device)
        loaded: LoadedModel | ExportedModel
        model: nn.Module
        if is_exported(path):
            loaded = model = load_exported(
                path,
                classes=names,
                phi=phi,
                cfg=cfg,
                anchors=anchors,
                input_size=input_size,
                device=device,
                amp=amp,
            )
            place = loaded.device
        else:
            place = choose_device(device)
            loaded = load_model(str(path), classes=names, phi=phi, cfg=cfg, anchors=anchors)
            if loaded.anchors_note:
                log(loaded.anchors_note)
            model = loaded.model
            fold_norms(model.eval())
        options = dict[str, Any](conf=conf, nms_iou=nms_iou, max_det=max_det, input_size=input_size)
        views = dict[str, Any](tile=tile, tile_overlap=tile_overlap, flip_test=flip_test)
        predictor = cls(model, loaded.config, loaded.class_names, device=place, amp=amp, **options, **views)
        predictor.source = loaded.path
        predictor.names_from = loaded.names_from if isinstance(loaded, LoadedModel) else None
        return predictor

    def describe(self) -> str:
        """Return a line with weights, network, input size, device, number type of --amp and classes."""
        height, width = self.input_size
        names = ", ".join(self.class_names[:20]) + (" ..." if len(self.class_names) > 20 else "")
        precision = f" {self.amp_dtype}".replace("torch.", "") if self.amp_dtype else ""
        classes = plural(len(self.class_names), "class", "classes")
        origin = f" ({self.names_from})" if self.names_from else ""
        runtime = f" ({self.model.name})" if isinstance(self.model, ExportedModel) else ""
        return (
            f"weights {self.source or 'in memory'}  phi {self.config.phi}  heads {self.config.num_heads}  "
            f"input {height}x{width}  device {self.device}{precision}{runtime}  {classes}{origin}: {names}"
        )

    def speed_conditions(self, batch_size: int) -> dict[str, Any]:
        """Return what a time per image depends on, by name, for lines about speed and metrics.json."""
        is_exported = isinstance(self.model, ExportedModel)
        is_fixed = is_exported and not isinstance(self.model, OpenVinoModel)
        return {
            "batch_size": batch_size,
            "input_size": list(self.input_size),
            "precision": "as exported" if is_fixed else precision_name(self.amp_dtype),
            "threads": torch.get_num_threads(),  # of every runtime
            "device": str(self.device),
            "runtime": self.model.name if is_exported else f"PyTorch {torch.__version__}",
            **({"tile": list(self.tile_size), "tile_overlap": self.tile_overlap} if self.tile_size else {}),
            **({"flip_test": True} if self.flip_test else {}),
        }

    def advise_amp(self) -> str:
        """Return a remark for lines about speed: that --amp may be faster here, or nothing."""
        takes_amp = isinstance(self.model, OpenVinoModel) or not isinstance(self.model, ExportedModel)
        if self.amp_dtype or not takes_amp or not has_fast_bfloat16(self.device):
            return ""
        return "  (--amp may be faster: this device has fast bfloat16)"

    def limited_to(self, labels: Sequence[int]) -> Predictor:
        """Return a predictor with the same network that detects only these classes; labels stay the same.

        Raises:
            ValueError: not labels of classes.
        """
        if not all(isinstance(one, Integral) and 0 <= one < len(self.class_names) for one in labels):
            raise ValueError(f"labels must be from 0 to {len(self.class_names) - 1}, got {labels}")
        limited = copy.copy(self)
        limited._unwanted = torch.ones(len(self.class_names), dtype=torch.bool, device=self.device)
        limited._unwanted[list(labels)] = False
        return limited

    @overload  # a str is a Sequence[str] too, but the first signature takes it
    def __call__(self, images: ImageInput, *, batch_size: int = ...) -> Detections: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, images: Iterable[ImageInput], *, batch_size: int = ...) -> list[Detections]: ...
    def __call__(
        self, images: ImageInput | Iterable[ImageInput], *, batch_size: int = 8
    ) -> Detections | list[Detections]:
        """Detect objects in one image or in several.

        Args:
            images: a path, the content of an image file (bytes or a binary file), a PIL image, a uint8 array
                (H, W, 3) or a uint8 tensor (3, H, W) in RGB; or a list or a generator of these.
            batch_size: how many of them the network takes at a time.

        Returns:
            Detections in pixels of the image as it is displayed; for several images, one per image.

        Raises:
            UserError: a file is not a readable image.
            ValueError: an argument is none of these; the message names it.
        """
        if is_one_image(images):
            return self.detect([self.prepare(as_array(images, "images"))])[0]
        if not isinstance(batch_size, Integral) or batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        named = ((image, f"images[{number}]") for number, image in enumerate(images))
        results: list[Detections] = []
        for batch in batched(named, batch_size):
            results += self.detect([self.prepare(as_array(image, name)) for image, name in batch])
        return results

    def draw(self, image: ImageInput, detections: Detections | None = None) -> Image.Image:
        """Return an image with boxes, class names and scores: `predictor.draw("a.jpg").save("drawn.jpg")`.

        Without `detections` the objects are detected. Raises as the call.
        """
        pixels = as_array(image, "image")
        found = self(pixels) if detections is None else detections
        return Image.fromarray(draw_detections(pixels, found, self.class_names))

    def prepare(self, image: np.ndarray, name: Path | str | None = None) -> Prepared:
        """Letterbox a uint8 array (H, W, 3) in RGB to the input size; may be called from any thread.

        Raises:
            UserError: the image has too many tiles; begins with the `name` of the image, if it is given.
        """
        height, width = image.shape[:2]
        try:
            grid = tile_grid((height, width), self.tile_size, self.tile_overlap) if self.tile_size else []
        except UserError as error:
            raise UserError(f"{name}: {error}" if name else str(error)) from None
        tiles = [((x1, y1, x2, y2), image[y1:y2, x1:x2]) for x1, y1, x2, y2 in grid]
        return replace(self._letterbox(image), tiles=tiles)

    def _letterbox(self, image: np.ndarray) -> Prepared:
        start = time.perf_counter()
        canvas, placement = letterbox(image, self.input_size)
        return Prepared(to_tensor(canvas), placement, time.perf_counter() - start)

    def detect(self, batch: Sequence[Prepared], timings: Timings | None = None) -> list[Detections]:
        """Detect objects in prepared images, and add the time of each stage to `timings`.

        Returns:
            One Detections per image, on the CPU, in its pixels and clipped to it.
        """
        if not batch:
            return []
        timings = timings or Timings()
        timings.images += len(batch)
        if not any(prepared.tiles for prepared in batch):
            return self._detect(batch, self.conf, timings)
        found: list[list[Detections]] = [[] for _ in batch]
        cut: list[list[Tensor]] = [[] for _ in batch]
        views: Iterable[tuple[int, Tile | None, Prepared]] = self._views(batch)
        if (count := sum(len(prepared.tiles) for prepared in batch)) >= _MANY_TILES:
            views = progress(views, "tiles", total=len(batch) + count, unit="tile")
        for chunk in batched(views, max(len(batch), _TILES_AT_A_TIME)):
            detections = self._detect([view for _, _, view in chunk], self.conf * CUT_WEIGHT, timings)
            for (number, tile, _), one in zip(chunk, detections, strict=True):
                is_cut = torch.zeros(len(one), dtype=torch.bool)
                if tile is not None:
                    one = replace(one, boxes=one.boxes + one.boxes.new_tensor(tile[:2] * 2))
                    is_cut = find_cut(one.boxes, tile, batch[number].placement.image_size)
                found[number].append(one)
                cut[number].append(is_cut)
        start = time.perf_counter()
        results = [
            self._merge(parts, torch.cat(is_cut), self.conf)
            if len(parts) > 1
            else parts[0][parts[0].scores >= self.conf]
            for parts, is_cut in zip(found, cut, strict=True)
        ]
        timings.postprocess += time.perf_counter() - start
        return results

    def _views(self, batch: Sequence[Prepared]) -> Iterator[tuple[int, Tile | None, Prepared]]:
        """Yield (index in the batch, tile, what the network takes): each whole image, then its tiles."""
        for number, prepared in enumerate(batch):
            yield number, None, prepared
            for tile, pixels in prepared.tiles:
                yield number, tile, self._letterbox(pixels)

    @torch.no_grad()
    def _detect(self, batch: Sequence[Prepared], conf: float, timings: Timings) -> list[Detections]:
        """Detect objects in what the network takes, without a look at the tiles."""
        start = time.perf_counter()
        images = self.to_input(batch)
        if isinstance(self.model, ExportedModel) and self.model.ends_in_nms:
            detections = self._detect_by(self.model, images, conf)
            middle = time.perf_counter()
        else:
            autocast = torch.autocast(self.device.type, self.amp_dtype, enabled=self.amp_dtype is not None)
            with self.evaluation_mode, autocast:
                maps = [self.model(images)]
                if self.flip_test:
                    maps.append(self.model(images.flip(3)))
            self._synchronize()
            middle = time.perf_counter()
            detections = self._postprocess(maps, conf)
        results = [
            replace(undo_placement(one, prepared.placement), class_names=self.class_names)
            for one, prepared in zip(detections, batch, strict=True)
        ]
        timings.preprocess += sum(prepared.seconds for prepared in batch)
        timings.network += middle - start
        timings.postprocess += time.perf_counter() - middle
        return results

    def to_input(self, batch: Sequence[Prepared]) -> Tensor:
        """Return prepared images as the network takes them: float32 (B, 3, H, W) in [0, 1] on its device."""
        prefers_channels_last = self.device.type != "mps" and not isinstance(self.model, ExportedModel)
        # Saves a CPU a fifth of the network's time.
        layout = torch.channels_last if prefers_channels_last else torch.contiguous_format
        return to_batch([prepared.pixels for prepared in batch], self.device, layout)

    def decode(self, raw_maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Decode raw maps to boxes in network pixels and scores, see `nets.decode.decode`."""
        anchors, masks, scale_x_y = self.config.anchors, self.config.anchor_masks, self.config.scale_x_y
        priors = cached_priors(grids_of(raw_maps), anchors, masks, raw_maps[0].device)
        return decode(raw_maps, anchors=anchors, anchor_masks=masks, scale_x_y=scale_x_y, priors=priors)

    def _postprocess(self, maps: Sequence[list[Tensor]], conf: float) -> list[Detections]:
        """Turn raw maps, and those of the mirrored images, into detections in network pixels."""
        boxes, scores = self.decode(maps[0])
        for mirrored in maps[1:]:
            more, their_scores = self.decode(mirrored)
            boxes = torch.cat((boxes, mirror(more, self.input_size[1])), dim=1)
            scores = torch.cat((scores, their_scores), dim=1)
        if self._unwanted is not None:
            scores = scores.masked_fill(self._unwanted, -1.0)
        return postprocess(
            boxes, scores, conf_threshold=conf, iou_threshold=self.nms_iou, max_detections=self.max_det
        )

    def _detect_by(self, model: ExportedModel, images: Tensor, conf: float) -> list[Detections]:
        """Return the detections of a model that ends in NMS, in network pixels."""
        wanted = torch.ones(len(self.class_names)).bool() if self._unwanted is None else ~self._unwanted.cpu()
        max_det = self.max_det if wanted.all() else MAX_CANDIDATES

        def detect(images: Tensor) -> list[Detections]:
            found = model.detect(images, conf=conf, nms_iou=self.nms_iou, max_det=max_det)
            return [one[wanted[one.labels].nonzero().flatten()[: self.max_det]] for one in found]

        if not self.flip_test:
            return detect(images)
        results = []
        for one, mirrored in zip(detect(images), detect(images.flip(3)), strict=True):
            other = replace(mirrored, boxes=mirror(mirrored.boxes, self.input_size[1]))
            results.append(self._merge([one, other], torch.zeros(len(one) + len(other)).bool(), conf))
        return results

    def _merge(self, parts: Sequence[Detections], is_cut: Tensor, conf: float) -> Detections:
        """Choose among the detections of several views of an image."""
        boxes, scores, labels = (
            torch.cat([getattr(one, name) for one in parts]) for name in ("boxes", "scores", "labels")
        )
        joined = Detections(boxes, scores, labels, parts[0].class_names)
        return merge(joined, is_cut, conf=conf, iou_threshold=self.nms_iou, max_detections=self.max_det)

    def _synchronize(self) -> None:
        """Wait for the accelerator, which computes asynchronously, so that the timings are right."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()


def mirror(boxes: Tensor, width: int) -> Tensor:
    """Return boxes, Tensor[..., 4], where they are when an image of this width is mirrored left to right."""
    x1, y1, x2, y2 = boxes.unbind(dim=-1)
    return torch.stack((width - x2, y1, width - x1, y2), dim=-1)


def _check_arguments(
    conf: float, nms_iou: float, max_det: int, tile: int | None, tile_overlap: float
) -> None:
    for name, value, most in (
        ("conf", conf, 1),
        ("nms_iou", nms_iou, 1),
        ("tile_overlap", tile_overlap, 0.9),
    ):
        if not isinstance(value, Real) or not 0 <= value <= most:
            raise ValueError(f"{name} must be a number from 0 to {most}, got {value!r}")
    if tile is not None and (not isinstance(tile, Integral) or (tile != 0 and tile < 32)):
        raise ValueError(f"tile must be a number of at least 32 pixels, or 0, got {tile!r}")
    if not isinstance(max_det, Integral) or max_det < 1:
        raise ValueError(f"max_det must be a number of at least 1, got {max_det!r}")


def _check_input_size(config: ModelConfig, input_size: tuple[int, int] | None) -> tuple[int, int]:
    """Return the input size (height, width), by default the config's; a ValueError if it cannot be one."""
    if input_size is None:
        return config.input_size
    try:
        height, width = map(operator.index, input_size)
    except (TypeError, ValueError):
        raise ValueError(f"input_size must be (height, width), got {input_size!r}") from None
    return replace(config, input_size=(height, width)).input_size


def undo_placement(detections: Detections, placement: Placement) -> Detections:
    """Map detections from network pixels to the image, without those that lie in the gray border only."""
    boxes = torch.from_numpy(placement.undo(detections.boxes.numpy()))
    inside = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
    return Detections(boxes, detections.scores, detections.labels)[inside]


def build_predictor(config: EvaluateConfig | PredictConfig) -> Predictor:
    """Build the predictor that the settings of a command describe, and log its description.

    Raises:
        UserError: the weights or their text files cannot be read, or there is no such device or class, or
            --amp is not for this format.
    """
    predictor = Predictor.from_checkpoint(
        config.weights,
        classes=read_class_names(config.classes) if config.classes else None,
        phi=config.phi,
        cfg=config.cfg,
        anchors=config.anchors,
        device=config.device,
        amp=config.amp,
        conf=config.conf,
        nms_iou=config.nms_iou,
        max_det=config.max_det,
        input_size=config.imgsz,
        tile=config.tile,
        tile_overlap=config.tile_overlap,
        flip_test=config.flip_test,
    )
    log(predictor.describe())
    if predictor.tile_size:
        height, width = predictor.tile_size
        log(f"tiles: {height}x{width} pixels, overlap {config.tile_overlap:g}, beside the whole image")
    if config.flip_test:
        log("--flip-test: the mirrored image too, which takes twice the time")
    if config.amp and predictor.device.type == "cpu" and not has_fast_bfloat16(predictor.device):
        if predictor.amp_dtype:
            warn("--amp: this CPU is slower in bfloat16 than in float32; leave --amp out")
        else:
            warn("--amp: this CPU has no bfloat16 instructions, so it has no effect; leave --amp out")
    if not isinstance(config, PredictConfig) or config.only is None:
        return predictor
    matched = match_class_names(predictor.class_names, config.only)
    missing = [name for name, label in zip(config.only, matched, strict=True) if label is None]
    if missing:
        names = ", ".join(predictor.class_names)
        raise UserError(f"--only {', '.join(missing)}: not among the classes {names}")
    return predictor.limited_to([label for label in matched if label is not None])
