"""Find objects in pictures with an exported YOLOv4-tiny: needs numpy, OpenCV and the model's runtime only.

    python detect.py photo.jpg folder/ --json found.jsonl    # pictures with boxes drawn go to results/
    python detect.py --camera 0                              # a USB camera, until Ctrl-C
    python detect.py photo.jpg --benchmark                   # what each part takes on this machine

In Python, with frames from anywhere, uint8 arrays (height, width, 3) in RGB (OpenCV's BGR: frame[..., ::-1]):

    detector = Detector()                        # the model beside this file
    boxes, scores, labels = detector(frame)      # (N, 4) x1 y1 x2 y2 in pixels of the frame, (N,), (N,)

OpenCV cannot read the Raspberry Pi's ribbon cameras: take the frames from picamera2's capture_array(), in its
format "BGR888", which is RGB in memory.
"""

from __future__ import annotations

import argparse
import colorsys
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", "89000000")  # larger pictures are refused
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # what matters is said in our words
import cv2

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm")
STRIDES = (32, 16)  # pixels a cell of the two heads, coarse first
MAX_LOG_SCALE = 4.0  # a box is at most e^4 times its anchor
MAX_CANDIDATES = 10_000  # a picture; bounds the time that suppression takes
Found = tuple[np.ndarray, np.ndarray, np.ndarray]  # boxes (N, 4), scores (N,), labels (N,)


def open_onnx(path: Path, threads: int, fp16: bool) -> Any:
    """Open an .onnx; one that suppresses by itself takes the limits as inputs and gives rows (B, D, 6)."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    kinds = {"conf": np.float32, "nms_iou": np.float32, "max_det": np.int64}
    taken = [one.name for one in session.get_overridable_initializers() if one.name in kinds]

    def run(images: np.ndarray, limits: dict[str, float]) -> Sequence[np.ndarray]:
        given = {name: np.array([limits[name]], kinds[name]) for name in taken}
        return session.run(None, {"images": images, **given})

    return run, from_texts(session.get_modelmeta().custom_metadata_map), session.get_inputs()[0].shape[0]


def open_openvino(path: Path, threads: int, fp16: bool) -> Any:
    """Open an .xml with its .bin, to compute in 32 bits."""
    import openvino

    core = openvino.Core()
    model = core.read_model(str(path))
    options = {"INFERENCE_PRECISION_HINT": "f32"} | ({"INFERENCE_NUM_THREADS": threads} if threads else {})
    request = core.compile_model(model, "CPU", options).create_infer_request()
    shape = model.input("images").partial_shape
    batch = shape[0].get_length() if shape.is_static else None
    described = from_texts(model.get_rt_info(["yolov4_tiny"]).value)
    return lambda images, limits: request.infer({"images": images}).to_tuple(), described, batch


def open_ncnn(path: Path, threads: int, fp16: bool) -> Any:
    """Open a .param with its .bin and .json."""
    import ncnn

    if not path.read_bytes().startswith(b"7767517"):  # ncnn does not survive every file
        raise ValueError("not an ncnn model")
    described = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    path.with_suffix(".bin").stat()  # raises where it is missing, of which ncnn would tell at length
    net = ncnn.Net()
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = fp16
    net.opt.use_bf16_storage, net.opt.num_threads = False, threads or net.opt.num_threads
    if net.load_param(str(path)) or net.load_model(str(path.with_suffix(".bin"))):
        raise ValueError("ncnn refuses it")

    def run(images: np.ndarray, limits: dict[str, float]) -> Sequence[np.ndarray]:
        extractor, image = net.create_extractor(), ncnn.Mat(images[0])  # looks at the memory of `images`
        extractor.input("in0", image)
        return [np.array(extractor.extract(head)[1])[None] for head in ("out0", "out1")]

    return run, described, 1


def from_texts(texts: Any) -> dict[str, Any]:
    """Read a model's metadata: JSON, but for two plain strings."""
    return {key: texts[key] if key in ("phi", "channels") else json.loads(texts[key]) for key in texts}


OPENERS = {".onnx": open_onnx, ".xml": open_openvino, ".param": open_ncnn}


class Detector:
    """Called with a frame, returns what is in it; for one thread. `class_names` are behind the labels."""

    def __init__(self, model: str | Path | None = None, *, threads: int = 0, fp16: bool = False) -> None:
        """Load a model, or the first beside this file; 0 threads: as the runtime likes; fp16: ncnn only."""
        beside = [path for end in OPENERS for path in sorted(Path(__file__).resolve().parent.glob(f"*{end}"))]
        self.path = Path(model) if model else [*beside, Path("model")][0]
        if self.path.suffix not in OPENERS or not self.path.is_file():
            raise ValueError(f"{self.path}: no such model; name an .onnx, .xml or .param with --model")
        if fp16 and self.path.suffix != ".param":
            raise ValueError(f"--fp16: {self.path} is not ncnn's, which alone takes it; leave it out")
        try:
            self.run, self.info, batch = OPENERS[self.path.suffix](self.path, threads, fp16)
            self.class_names, self.input_size = self.info["class_names"], self.info["input_size"]
            self.defaults = {name: self.info[name] for name in ("conf", "nms_iou", "max_det")}
        except Exception as error:  # the runtimes raise anything
            advice = "pip install -r requirements.txt" if isinstance(error, ImportError) else "export again"
            raise ValueError(f"{self.path}: {type(error).__name__}: {error}; {advice}") from error
        if self.info["format_version"] > 1:
            raise ValueError(f"{self.path}: made for a newer detect.py; copy that one too")
        self.batch = batch if isinstance(batch, int) else 1

    def __call__(self, frame: np.ndarray, **limits: float) -> Found:
        """Detect objects in a frame, uint8 (H, W, 3) in RGB.

        Limits are conf, the lowest score that counts, nms_iou, the overlap from which the weaker box of a
        class goes, and max_det; the model brings defaults. Returns boxes (N, 4) float32, x1, y1, x2, y2 in
        pixels of the frame and within it, scores (N,) float32, highest first, and labels (N,) int64.
        """
        if unknown := limits.keys() - self.defaults:
            raise TypeError(f"no limits of that name: {', '.join(unknown)}")
        limits, times = self.defaults | limits, [time.perf_counter()]
        images, placement = self.prepare(frame)
        times.append(time.perf_counter())
        outputs = self.run(images, limits)
        times.append(time.perf_counter())
        found = self.finish(outputs, placement, limits)
        self.milliseconds = 1000 * np.diff([*times, time.perf_counter()])
        return found

    def files(self) -> list[Path]:
        """Return the files of the model and those that lie beside it, none of which may be written over."""
        own = [self.path.with_suffix(end) for end in (".onnx", ".xml", ".bin", ".param", ".json")]
        beside = ("detect.py", "labels.txt", "requirements.txt", "MODEL_CARD.md", "args.yaml")
        return own + [self.path.with_name(name) for name in beside]

    def prepare(self, frame: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        """Letterbox a frame: images (B, 3, height, width) in [0, 1], the first is it, and its place."""
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or not frame.size:
            raise ValueError(f"a frame is a uint8 array (H, W, 3) in RGB, not {frame.dtype} {frame.shape}")
        (height, width), (rows, columns) = frame.shape[:2], self.input_size
        ratio = min(rows / height, columns / width)
        size = max(1, round(width * ratio)), max(1, round(height * ratio))
        left, top = (columns - size[0]) // 2, (rows - size[1]) // 2
        canvas = np.full((rows, columns, 3), self.info["letterbox"]["fill"], np.uint8)
        canvas[top : top + size[1], left : left + size[0]] = cv2.resize(np.ascontiguousarray(frame), size)
        images = np.zeros((self.batch, 3, rows, columns), np.float32)
        np.divide(canvas.transpose(2, 0, 1), 255, out=images[0], dtype=np.float32)
        pairs = ((size[0] / width, size[1] / height), (left, top), (width, height))
        return images, [np.array(pair * 2, np.float32) for pair in pairs]

    def finish(self, outputs: Sequence[np.ndarray], placement: list[np.ndarray], limits: Any) -> Found:
        """Turn what the model gives into detections in pixels of the frame."""
        if len(outputs) == 1:  # the model has suppressed; it fills up with score 0
            rows = outputs[0][0][outputs[0][0, :, 4] > 0]
            boxes, scores, labels = rows[:, :4], rows[:, 4], rows[:, 5].astype(np.int64)
        else:
            boxes, scores, labels = suppress(*decode(outputs, self.info, limits["conf"]), limits)
        scale, offset, size = placement
        boxes = np.clip((boxes - offset) / scale, 0, size)
        inside = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)  # in the gray border alone there is nothing
        return boxes[inside], scores[inside], labels[inside]


def decode(heads: Sequence[np.ndarray], info: dict[str, Any], conf: float) -> Found:
    """Turn raw maps (B, A*(5+K), h, w) into the boxes, in network pixels, that score `conf` in any class."""
    parts, stretch = [], info["scale_x_y"]
    for raw, mask, stride in zip(heads, info["anchor_masks"], STRIDES, strict=True):
        height, width = raw.shape[2:]
        flat = raw[0].reshape(len(mask), -1, height * width).transpose(0, 2, 1)  # (A, h*w, 5+K)
        anchor, cell = np.nonzero(sigmoid(flat[..., 4]) >= conf)  # no score is above its objectness
        values = flat[anchor, cell]  # (P, 5+K)
        corner = np.stack((cell % width, cell // width), axis=1).astype(np.float32)
        center = (sigmoid(values[:, :2]) * stretch - (stretch - 1) / 2 + corner) * stride
        anchors = np.array([info["anchors"][index] for index in mask], np.float32)[anchor]
        half = np.exp(np.clip(values[:, 2:4], -MAX_LOG_SCALE, MAX_LOG_SCALE)) * anchors / 2
        scores = sigmoid(values[:, 4:5]) * sigmoid(values[:, 5:])  # (P, K)
        slot, label = np.nonzero(scores >= conf)
        parts.append((np.hstack((center - half, center + half))[slot], scores[slot, label], label))
    boxes, scores, labels = map(np.concatenate, zip(*parts, strict=True))
    return boxes, scores, labels


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Return the logistic function, without overflow."""
    return 1 / (1 + np.exp(np.minimum(-x, 80)))


def suppress(boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, limits: dict[str, Any]) -> Found:
    """Keep the best detections, highest score first, none that overlaps a better one of its class."""
    order = np.argsort(-scores, kind="stable")[:MAX_CANDIDATES]
    boxes, scores, labels = boxes[order], scores[order], labels[order]
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    kept: list[int] = []
    left = np.arange(len(boxes))
    while len(left) and len(kept) < limits["max_det"]:
        best, left = left[0], left[1:]
        kept.append(best)
        sides = np.minimum(boxes[left, 2:], boxes[best, 2:]) - np.maximum(boxes[left, :2], boxes[best, :2])
        shared = np.maximum(sides, 0).prod(axis=1)
        overlaps = shared / (areas[left] + areas[best] - shared) > limits["nms_iou"]
        left = left[~(overlaps & (labels[left] == labels[best]))]
    return boxes[kept], scores[kept], labels[kept]


def read_picture(path: Path) -> np.ndarray:
    """Read a picture as it is displayed, uint8 (H, W, 3) in RGB: turned by EXIF, transparency over white."""
    data = path.read_bytes() if path.is_file() else b""
    is_jpeg, buffer = data.startswith(b"\xff\xd8"), np.frombuffer(data, np.uint8)
    if is_jpeg and not ends_whole(data):  # OpenCV would fill up with gray
        raise ValueError("its end is missing")
    image = cv2.imdecode(buffer, cv2.IMREAD_COLOR) if data else None
    if image is None:
        raise ValueError("not a picture that can be read")
    stored: Any = image if is_jpeg else cv2.imdecode(buffer, cv2.IMREAD_UNCHANGED)
    if stored.ndim == 3 and stored.shape[2] == 4:  # which is not turned by EXIF yet
        turns = (np.rot90(side, quarter) for side in (stored, stored[:, ::-1]) for quarter in range(4))
        same = (turn for turn in turns if np.array_equal(turn[..., :3], image))
        opacity = next(same, stored)[..., 3:] / np.iinfo(stored.dtype).max
        image = np.uint8(image * opacity + 255 * (1 - opacity) + 0.5)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def ends_whole(data: bytes) -> bool:
    """Tell whether a JPEG's own end marker is there; its thumbnail has one, what follows the end may."""
    at = 2
    while data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] not in (b"\xda", b""):  # to the first scan
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return b"\xff\xd9" in data[at:]


def write_picture(target: Path, frame: np.ndarray, found: Found, class_names: Sequence[str]) -> None:
    """Write a frame with boxes, class names and scores, whole or not at all."""
    image, size = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), max(0.4, min(frame.shape[:2]) / 900)
    thick = round(2 * size)
    for box, score, label in zip(found[0].round().astype(int), *found[1:], strict=True):
        color = [255 * part for part in colorsys.hsv_to_rgb(label * 0.618034 % 1, 0.8, 0.9)]  # far apart
        cv2.rectangle(image, box[:2].tolist(), (box[2:] - 1).tolist(), color, thick)
        name = class_names[label] if class_names[label].isascii() else f"class {label}"  # OpenCV's letters
        place = int(box[0]), max(int(box[1]) - 3, round(22 * size))
        for ink, width in (((0, 0, 0), 4 * thick), (color, thick)):
            cv2.putText(image, f"{name} {score:.2f}", place, cv2.FONT_HERSHEY_SIMPLEX, size, ink, width)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(target.name + ".tmp")
    temporary.write_bytes(cv2.imencode(target.suffix, image)[1].tobytes())
    os.replace(temporary, target)


def find_pictures(sources: Sequence[str], out: Path) -> dict[Path, Path]:
    """Return the pictures behind files and folders, and where each goes with its boxes."""
    targets: dict[Path, Path] = {}
    for source in map(Path, sources):
        found = sorted(source.iterdir()) if source.is_dir() else [source]
        found = [path for path in found if path == source or path.suffix.lower() in SUFFIXES]
        if not found or not os.path.lexists(found[0]):
            raise ValueError(f"{source}: no picture here; name a picture or a folder with some in it")
        for path in found:
            ending, number = ".png" if path.suffix.lower() == ".png" else ".jpg", 1
            while (target := out / f"{path.stem}{f'_{number}' * (number > 1)}{ending}") in targets.values():
                number += 1
            targets.setdefault(path, target)
    return targets


def look(pictures: Sequence[Path], camera: int | None, bad: list[Path]) -> Iterator[tuple[Path, np.ndarray]]:
    """Yield pictures, or the frames of a camera, as uint8 (H, W, 3) in RGB; notes and names the bad ones."""
    for path in pictures:
        try:
            yield path, read_picture(path)
        except (OSError, ValueError, cv2.error) as error:
            bad.append(path)
            print(f"warning: {path}: {error}; skipped", file=sys.stderr)
    if camera is not None:
        capture = cv2.VideoCapture(camera)
        while (frame := capture.read()[1]) is not None:
            yield Path(f"camera{camera}"), cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
        raise OSError(f"--camera {camera}: gives no frame; is it a USB camera, and no other program's?")


def describe(path: Path, frame: np.ndarray, found: Found, names: Sequence[str]) -> str:
    """Return what is in a picture as predict.py writes it, a line of JSON."""
    detections = [
        {"box": [round(x, 3) for x in box], "score": round(score, 6), "label": names[k], "class_id": k}
        for box, score, k in zip(*(part.tolist() for part in found), strict=True)
    ]
    name = os.fsencode(path).decode("utf-8", "backslashreplace")
    line = {"path": name, "width": frame.shape[1], "height": frame.shape[0], "detections": detections}
    return json.dumps(line, ensure_ascii=False) + "\n"


def benchmark(detector: Detector, frame: np.ndarray, limits: dict[str, Any], runs: int) -> None:
    """Print what each part takes, after ten runs that are not counted."""
    rows = [detector.milliseconds for _ in range(10 + runs) if detector(frame, **limits)]
    table = np.percentile([[*row, row.sum()] for row in rows[10:]], (50, 95), axis=0).T
    print(f"{'ms a frame':<12} {'median':>8} {'p95':>8}")
    for name, (median, high) in zip(("preprocess", "network", "postprocess", "total"), table, strict=True):
        print(f"{name:<12} {median:>8.2f} {high:>8.2f}")


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Find objects with the exported model beside this file.")
    parser.add_argument("sources", nargs="*", metavar="SOURCE", help="a picture or a folder of pictures")
    parser.add_argument("--camera", type=int, metavar="N", help="watch a USB camera until Ctrl-C")
    parser.add_argument("--model", metavar="FILE", help=".onnx, .xml or .param, where several lie here")
    parser.add_argument("--out", metavar="DIR", help="folder of the pictures with boxes (default: results)")
    parser.add_argument("--json", metavar="FILE", help="write the detections here, a JSON object a line")
    parser.add_argument("--conf", type=float, metavar="X", help="lowest score that counts")
    parser.add_argument("--nms-iou", type=float, metavar="X", help="overlap from which the weaker box goes")
    parser.add_argument("--max-det", type=int, metavar="N", help="most detections a picture")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="of the runtime")
    parser.add_argument("--fp16", action="store_true", help="16-bit arithmetic in ncnn, faster on ARM")
    parser.add_argument("--benchmark", type=int, nargs="?", const=100, metavar="N", help="measure N runs")
    args = parser.parse_args(argv)
    for name, least, most in (
        ("conf", 0, 1),
        ("nms_iou", 0, 1),
        ("max_det", 1, 99999),
        ("benchmark", 1, 99999),
        ("threads", 0, 999),
    ):
        if (value := getattr(args, name)) is not None and not least <= value <= most:
            parser.error(f"--{name.replace('_', '-')} {value}: must lie within [{least}, {most}]")
    if not args.sources and args.camera is None:
        parser.error("nothing to look at; name a picture or a folder: python detect.py photo.jpg")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns 2 where nothing could begin, 1 where something could not be done."""
    args = parse_arguments(argv)
    for stream in (sys.stdout, sys.stderr):
        getattr(stream, "reconfigure", dict)(errors="backslashreplace")  # no class name must end the program
    given = {name: getattr(args, name) for name in ("conf", "nms_iou", "max_det")}
    limits = {name: value for name, value in given.items() if value is not None}
    bad: list[Path] = []
    status = 2
    try:
        detector = Detector(args.model, threads=args.threads, fp16=args.fp16)
        targets = find_pictures(args.sources, Path(args.out or "results"))
        written = {os.path.realpath(path) for path in (*targets.values(), args.json) if path}
        if inputs := written & {os.path.realpath(path) for path in (*targets, *detector.files())}:
            raise ValueError(f"{min(inputs)}: is also an input; name another --out or --json")
        print(f"model {detector.path}  {len(detector.class_names)} classes", file=sys.stderr)
        with open(args.json, "w", encoding="utf-8", buffering=1) if args.json else nullcontext() as lines:
            if (targets or args.out) and not args.benchmark:
                Path(args.out or "results").mkdir(parents=True, exist_ok=True)
            status = 1
            for path, frame in look([*targets], args.camera, bad):
                if args.benchmark:
                    benchmark(detector, frame, limits, args.benchmark)
                    break
                found = detector(frame, **limits)
                counts = Counter(detector.class_names[label] for label in found[2]).most_common()
                shown = " ".join(f"{count} {name}" for name, count in counts) or "0 objects"
                print(f"{path}  {shown}  {detector.milliseconds.sum():.0f} ms", flush=True)
                if lines:
                    lines.write(describe(path, frame, found, detector.class_names))
                if path in targets or args.out:
                    target = targets.get(path, Path(args.out or "") / f"{path}.jpg")
                    write_picture(target, frame, found, detector.class_names)
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # of the runtimes, anything
        print(f"error: {' '.join(str(error).split())}"[:400], file=sys.stderr)
        return status
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
