"""Object detection with an exported YOLOv4-tiny; needs only numpy, OpenCV and the model's runtime.

    python detect.py photo.jpg folder/ --json found.jsonl    # writes images with boxes to results/
    python detect.py --camera 0                              # a USB camera, until Ctrl-C
    python detect.py photo.jpg --benchmark                   # the time of each part on this machine

In Python, with frames from anywhere, uint8 arrays (height, width, 3) in RGB (OpenCV's BGR: frame[..., ::-1]):

    detector = Detector()                        # the model beside this file
    boxes, scores, labels = detector(frame)      # (N, 4) x1 y1 x2 y2 in pixels of the frame, (N,), (N,)

OpenCV does not support the Raspberry Pi's ribbon cameras. Take frames from picamera2's capture_array() with
the format "BGR888", which is RGB in memory.
"""

from __future__ import annotations

import argparse
import colorsys
import json
import os
import re
import secrets
import sys
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", "89000000")  # larger pictures are refused
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # this script reports errors itself
import cv2

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm")
STRIDES = (32, 16, 8)  # pixels a cell of the heads, coarse first; a network has the first two or all three
MAX_LOG_SCALE = 4.0  # a box is at most e^4 times its anchor
MAX_CANDIDATES = 10_000  # a picture; bounds the time of suppression
MARK = b"Software\0detect.py of YOLOv4-tiny"  # in every written picture: only such a one is overwritten
Found = tuple[np.ndarray, np.ndarray, np.ndarray]  # boxes (N, 4), scores (N,), labels (N,)


def load_onnx(path: Path, threads: int, half: bool) -> Any:
    """Load an .onnx; a model that ends in NMS takes the thresholds as inputs and returns rows (B, D, 6)."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    kinds = {"conf": np.float32, "nms_iou": np.float32, "max_det": np.int64}
    taken = [one.name for one in session.get_overridable_initializers() if one.name in kinds]

    def run(images: np.ndarray, thresholds: dict[str, float]) -> Sequence[np.ndarray]:
        given = {name: np.array([thresholds[name]], kinds[name]) for name in taken}
        return session.run(None, {"images": images, **given})

    return run, parse_metadata(session.get_modelmeta().custom_metadata_map), session.get_inputs()[0].shape[0]


def load_openvino(path: Path, threads: int, half: bool) -> Any:
    """Load an .xml with its .bin; `half` takes bfloat16 where the processor has it, else 32 bits as usual."""
    import openvino

    core = openvino.Core()
    model = core.read_model(str(path))
    options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "bf16" if half else "f32"}
    options |= {"INFERENCE_NUM_THREADS": threads} if threads else {}
    request = core.compile_model(model, "CPU", options).create_infer_request()
    shape = model.input("images").partial_shape
    batch = shape[0].get_length() if shape.is_static else None
    described = parse_metadata(model.get_rt_info(["yolov4_tiny"]).value)
    return lambda images, thresholds: request.infer({"images": images}).to_tuple(), described, batch


def load_ncnn(path: Path, threads: int, half: bool) -> Any:
    """Load a .param with its .bin and .json; `half` computes in float16."""
    import ncnn

    if not path.read_bytes().startswith(b"7767517"):  # ncnn crashes on some files
        raise ValueError("not an ncnn model")
    described = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    path.with_suffix(".bin").stat()  # raises if it is missing; ncnn would print a page
    heads = [f"out{head}" for head in range(len(described["anchor_masks"]))]
    net = ncnn.Net()
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = half
    net.opt.use_bf16_storage, net.opt.num_threads = False, threads or net.opt.num_threads
    if net.load_param(str(path)) or net.load_model(str(path.with_suffix(".bin"))):
        raise ValueError("ncnn cannot load it")

    def run(images: np.ndarray, thresholds: dict[str, float]) -> Sequence[np.ndarray]:
        extractor, image = net.create_extractor(), ncnn.Mat(images[0])  # shares the memory of `images`
        extractor.input("in0", image)
        return [np.array(extractor.extract(head)[1])[None] for head in heads]

    return run, described, 1


def parse_metadata(texts: Any) -> dict[str, Any]:
    """Parse the metadata of a model: JSON except two plain strings."""
    return {key: texts[key] if key in ("phi", "channels") else json.loads(texts[key]) for key in texts}


LOADERS = {".onnx": load_onnx, ".xml": load_openvino, ".param": load_ncnn}
RUNTIMES = {".onnx": "onnxruntime", ".xml": "openvino", ".param": "ncnn"}


def explain(error: Exception, path: Path) -> str:
    """Return why a model could not be loaded, and what to do."""
    name = RUNTIMES[path.suffix]
    runtime = f"{name} {getattr(sys.modules.get(name), '__version__', '')}".strip()
    reason = re.sub(r"^.*\.\w+:\d+ .*?\) (?=[A-Z])", "", str(error))  # the place in ONNX Runtime's source
    is_old = isinstance(error, ImportError) or re.search("IR version|opset", reason)
    advice = "pip install --upgrade -r requirements.txt" if is_old else "export again"
    return f"{path}: {runtime}: {type(error).__name__}: {reason}; {advice}"


class Detector:
    """A detector that is called with frames, from one thread; `class_names` are the names of the labels."""

    def __init__(
        self, model: str | Path | None = None, *, threads: int = 0, fp16: bool = False, amp: bool = False
    ) -> None:
        """Load a model, by default the first beside this file; threads 0 lets the runtime choose.

        ncnn computes in 16 bits with fp16, OpenVINO with amp (bfloat16).
        """
        beside = [path for end in LOADERS for path in sorted(Path(__file__).resolve().parent.glob(f"*{end}"))]
        self.path = Path(model) if model else [*beside, Path("model")][0]
        if self.path.suffix not in LOADERS or not self.path.is_file():
            raise ValueError(f"{self.path}: no such model; give an .onnx, .xml or .param with --model")
        if fp16 and self.path.suffix != ".param":
            raise ValueError(f"--fp16: {self.path} is no ncnn model; leave --fp16 out")
        if amp and self.path.suffix != ".xml":
            raise ValueError(f"--amp: {self.path} is no OpenVINO model; leave --amp out")
        try:
            self.run, self.metadata, batch = LOADERS[self.path.suffix](self.path, threads, fp16 or amp)
            self.class_names, self.input_size = self.metadata["class_names"], self.metadata["input_size"]
            self.defaults = {name: self.metadata[name] for name in ("conf", "nms_iou", "max_det")}
        except Exception as error:  # a runtime may raise anything
            raise ValueError(explain(error, self.path)) from error
        if self.metadata["format_version"] > 1:
            raise ValueError(f"{self.path}: made for a newer detect.py; copy that one as well")
        self.batch = batch if isinstance(batch, int) else 1

    def __call__(self, frame: np.ndarray, **thresholds: float) -> Found:
        """Detect objects in a frame, uint8 (H, W, 3) in RGB.

        The thresholds are conf (lowest score), nms_iou (of two boxes of a class that overlap more, the weaker
        one is dropped) and max_det; the model has defaults. Returns boxes (N, 4) float32, x1 y1 x2 y2 in
        pixels of the frame and clipped to it, scores (N,) float32, highest first, and labels (N,) int64.
        """
        if unknown := thresholds.keys() - self.defaults:
            raise TypeError(f"no such thresholds: {', '.join(unknown)}")
        thresholds, times = self.defaults | thresholds, [time.perf_counter()]
        images, placement = self.preprocess(frame)
        times.append(time.perf_counter())
        outputs = self.run(images, thresholds)
        times.append(time.perf_counter())
        found = self.postprocess(outputs, placement, thresholds)
        self.milliseconds = 1000 * np.diff([*times, time.perf_counter()])
        return found

    def files(self) -> list[Path]:
        """Return the files of the model and of its folder, which must not be overwritten."""
        own = [self.path.with_suffix(end) for end in (".onnx", ".xml", ".bin", ".param", ".json")]
        beside = ("detect.py", "labels.txt", "requirements.txt", "MODEL_CARD.md", "args.yaml")
        return own + [self.path.with_name(name) for name in beside]

    def preprocess(self, frame: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        """Letterbox a frame to images (B, 3, height, width) in [0, 1], of which it is the first."""
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or not frame.size:
            raise ValueError(f"a frame is a uint8 array (H, W, 3) in RGB, not {frame.dtype} {frame.shape}")
        (height, width), (rows, columns) = frame.shape[:2], self.input_size
        ratio = min(rows / height, columns / width)
        size = max(1, round(width * ratio)), max(1, round(height * ratio))
        left, top = (columns - size[0]) // 2, (rows - size[1]) // 2
        canvas = np.full((rows, columns, 3), self.metadata["letterbox"]["fill"], np.uint8)
        canvas[top : top + size[1], left : left + size[0]] = cv2.resize(np.ascontiguousarray(frame), size)
        images = np.zeros((self.batch, 3, rows, columns), np.float32)
        np.divide(canvas.transpose(2, 0, 1), 255, out=images[0], dtype=np.float32)
        pairs = ((size[0] / width, size[1] / height), (left, top), (width, height))
        return images, [np.array(pair * 2, np.float32) for pair in pairs]

    def postprocess(self, outputs: Any, placement: list[np.ndarray], thresholds: dict[str, Any]) -> Found:
        """Convert the outputs of the model to detections in pixels of the frame."""
        if len(outputs) == 1:  # the model ends in NMS; padding has score 0
            rows = outputs[0][0][outputs[0][0, :, 4] > 0]
            boxes, scores, labels = rows[:, :4], rows[:, 4], rows[:, 5].astype(np.int64)
        else:
            boxes, scores, labels = suppress(*decode(outputs, self.metadata, thresholds["conf"]), thresholds)
        scale, offset, size = placement
        boxes = np.clip((boxes - offset) / scale, 0, size)
        inside = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)  # drops boxes in the gray border
        return boxes[inside], scores[inside], labels[inside]


def decode(heads: Sequence[np.ndarray], metadata: dict[str, Any], conf: float) -> Found:
    """Decode raw maps (B, A*(5+K), h, w) to boxes in network pixels with scores from `conf`."""
    parts, stretch = [], metadata["scale_x_y"]
    for raw, mask, stride in zip(heads, metadata["anchor_masks"], STRIDES[: len(heads)]):
        height, width = raw.shape[2:]
        flat = raw[0].reshape(len(mask), -1, height * width).transpose(0, 2, 1)  # (A, h*w, 5+K)
        anchor, cell = np.nonzero(sigmoid(flat[..., 4]) >= conf)  # no score exceeds its objectness
        values = flat[anchor, cell]  # (P, 5+K)
        corner = np.stack((cell % width, cell // width), axis=1).astype(np.float32)
        center = (sigmoid(values[:, :2]) * stretch - (stretch - 1) / 2 + corner) * stride
        anchors = np.array([metadata["anchors"][index] for index in mask], np.float32)[anchor]
        half = np.exp(np.clip(values[:, 2:4], -MAX_LOG_SCALE, MAX_LOG_SCALE)) * anchors / 2
        scores = sigmoid(values[:, 4:5]) * sigmoid(values[:, 5:])  # (P, K)
        row, label = np.nonzero(scores >= conf)
        parts.append((np.hstack((center - half, center + half))[row], scores[row, label], label))
    boxes, scores, labels = map(np.concatenate, zip(*parts))
    return boxes, scores, labels


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Return the logistic function without overflow."""
    return 1 / (1 + np.exp(np.minimum(-x, 80)))


def suppress(boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, thresholds: dict[str, Any]) -> Found:
    """Suppress boxes that overlap a better one of their class; return the rest, highest score first."""
    order = np.argsort(-scores, kind="stable")[:MAX_CANDIDATES]
    boxes, scores, labels = boxes[order], scores[order], labels[order]
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    kept: list[int] = []
    left = np.arange(len(boxes))
    while len(left) and len(kept) < thresholds["max_det"]:
        best, left = left[0], left[1:]
        kept.append(best)
        sides = np.minimum(boxes[left, 2:], boxes[best, 2:]) - np.maximum(boxes[left, :2], boxes[best, :2])
        shared = np.maximum(sides, 0).prod(axis=1)
        overlaps = shared / (areas[left] + areas[best] - shared) > thresholds["nms_iou"]
        left = left[~(overlaps & (labels[left] == labels[best]))]
    return boxes[kept], scores[kept], labels[kept]


def read_picture(path: Path) -> np.ndarray:
    """Read a picture as uint8 (H, W, 3) in RGB: rotated by EXIF, transparency over white."""
    data = path.read_bytes() if path.is_file() else b""
    is_jpeg, buffer = data.startswith(b"\xff\xd8"), np.frombuffer(data, np.uint8)
    if is_jpeg and not is_complete_jpeg(data):  # OpenCV would fill it with gray
        raise ValueError("truncated JPEG")
    image = cv2.imdecode(buffer, cv2.IMREAD_COLOR) if data else None
    if image is None:
        raise ValueError("not a readable image")
    stored: Any = image if is_jpeg else cv2.imdecode(buffer, cv2.IMREAD_UNCHANGED)
    if stored.ndim == 3 and stored.shape[2] == 4:  # not rotated by EXIF yet
        turns = (np.rot90(side, quarter) for side in (stored, stored[:, ::-1]) for quarter in range(4))
        same = (turn for turn in turns if np.array_equal(turn[..., :3], image))
        opacity = next(same, stored)[..., 3:] / np.iinfo(stored.dtype).max
        image = np.uint8(image * opacity + 255 * (1 - opacity) + 0.5)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def is_complete_jpeg(data: bytes) -> bool:
    """Tell whether a JPEG has its end marker; its thumbnail and trailing bytes may hold others."""
    at = 2
    while data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] not in (b"\xda", b""):  # to the first scan
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return b"\xff\xd9" in data[at:]


def write_picture(target: Path, frame: np.ndarray, found: Found, class_names: Sequence[str]) -> None:
    """Write a frame with boxes, class names and scores; the file appears complete or not at all.

    Raises an OSError that names it.
    """
    image, size = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), max(0.4, min(frame.shape[:2]) / 900)
    thick = round(2 * size)
    for box, score, label in zip(found[0].round().astype(int), *found[1:]):
        color = [255 * part for part in colorsys.hsv_to_rgb(label * 0.618034 % 1, 0.8, 0.9)]  # far apart
        cv2.rectangle(image, box[:2].tolist(), (box[2:] - 1).tolist(), color, thick)
        name = class_names[label] if class_names[label].isascii() else f"class {label}"  # OpenCV's font
        place = int(box[0]), max(int(box[1]) - 3, round(22 * size))
        for ink, width in (((0, 0, 0), 4 * thick), (color, thick)):
            cv2.putText(image, f"{name} {score:.2f}", place, cv2.FONT_HERSHEY_SIMPLEX, size, ink, width)
    data = mark(cv2.imencode(target.suffix, image)[1].tobytes())
    temporary = target.with_name(f".detect-{secrets.token_hex(8)}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as file:  # a new file
            file.write(data)
        os.replace(temporary, target)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(target)) from error
    finally:
        if os.path.lexists(temporary):
            os.unlink(temporary)


def mark(data: bytes) -> bytes:
    """Add the mark of this script to a PNG, or to a JPEG of OpenCV."""
    if data.startswith(b"\xff\xd8"):  # a comment behind the JFIF header
        return data[:20] + b"\xff\xfe" + (2 + len(MARK)).to_bytes(2, "big") + MARK + data[20:]
    chunk = b"tEXt" + MARK  # behind the header
    ended = len(MARK).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    return data[:33] + ended + data[33:]


def is_marked(path: Path) -> bool:
    """Tell whether this script wrote a picture."""
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return MARK in file.read(100)


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Name the file in an OSError that names none, as those of writing do."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, name) from error


def find_pictures(sources: Sequence[str], out: Path) -> dict[Path, Path]:
    """Return the pictures of files and folders, each with the path of its output."""
    targets: dict[Path, Path] = {}
    for source in map(Path, sources):
        found = sorted(source.iterdir()) if source.is_dir() else [source]
        found = [path for path in found if path == source or path.suffix.lower() in SUFFIXES]
        if not found or not os.path.lexists(found[0]):
            raise ValueError(f"{source}: no image here; give an image or a folder of images")
        for path in found:
            ending, number = ".png" if path.suffix.lower() == ".png" else ".jpg", 1
            while (target := out / f"{path.stem}{f'_{number}' * (number > 1)}{ending}") in targets.values():
                number += 1
            targets.setdefault(path, target)
    return targets


def read_all(paths: Sequence[Path], camera: int | None, bad: list[Path]) -> Iterator[tuple[Path, np.ndarray]]:
    """Yield pictures, or frames of a camera, as uint8 (H, W, 3) in RGB; warn of bad ones and collect them."""
    for path in paths:
        try:
            yield path, read_picture(path)
        except (OSError, ValueError, cv2.error) as error:
            bad.append(path)
            print(f"warning: {path}: {error}; skipped", file=sys.stderr)
    if camera is not None:
        capture = cv2.VideoCapture(camera)
        while (frame := capture.read()[1]) is not None:
            yield Path(f"camera{camera}"), cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
        raise OSError(f"--camera {camera}: no frame; connect a USB camera, close other programs that use it")


def json_line(path: Path, frame: np.ndarray, found: Found, names: Sequence[str]) -> str:
    """Return the detections of a picture as a line of JSON, as predict.py writes it."""
    detections = [
        {"box": [round(x, 3) for x in box], "score": round(score, 6), "label": names[k], "class_id": k}
        for box, score, k in zip(*(part.tolist() for part in found))
    ]
    name = os.fsencode(path).decode("utf-8", "backslashreplace")
    line = {"path": name, "width": frame.shape[1], "height": frame.shape[0], "detections": detections}
    return json.dumps(line, ensure_ascii=False) + "\n"


def benchmark(detector: Detector, frame: np.ndarray, thresholds: dict[str, Any], runs: int) -> None:
    """Print the milliseconds of each part, after ten warm-up runs."""
    rows = [detector.milliseconds for _ in range(10 + runs) if detector(frame, **thresholds)]
    table = np.percentile([[*row, row.sum()] for row in rows[10:]], (50, 95), axis=0).T
    print(f"{'ms a frame':<12} {'median':>8} {'p95':>8}")
    for name, (median, high) in zip(("preprocess", "network", "postprocess", "total"), table):
        print(f"{name:<12} {median:>8.2f} {high:>8.2f}")


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Detect objects with the exported model beside this file.")
    add = parser.add_argument
    add("sources", nargs="*", metavar="SOURCE", help="an image or a folder of images")
    add("--camera", type=int, metavar="N", help="USB camera, until Ctrl-C")
    add("--model", metavar="FILE", help=".onnx, .xml or .param (default: the one beside this file)")
    add("--out", metavar="DIR", help="folder for images with boxes (default: results)")
    add("--json", metavar="FILE", help="file for the detections, one JSON object a line")
    add("--conf", type=float, metavar="X", help="lowest score of a detection")
    add("--nms-iou", type=float, metavar="X", help="IoU above which the weaker box is dropped")
    add("--max-det", type=int, metavar="N", help="maximum detections per image")
    add("--threads", type=int, default=0, metavar="N", help="threads (default: the runtime's own choice)")
    add("--fp16", action="store_true", help="16-bit arithmetic in ncnn, faster on ARM")
    add("--amp", action="store_true", help="bfloat16 in OpenVINO, if the processor has it; faster there")
    add("--benchmark", type=int, nargs="?", const=100, metavar="N", help="time N runs")
    args = parser.parse_args(argv)
    ranges = {"conf": (0, 1), "nms_iou": (0, 1), "max_det": (1, 99999), "benchmark": (1, 99999)}
    for name, (least, most) in (ranges | {"threads": (0, 999)}).items():
        if (value := getattr(args, name)) is not None and not least <= value <= most:
            parser.error(f"--{name.replace('_', '-')} {value}: must be within [{least}, {most}]")
    if not args.sources and args.camera is None:
        parser.error("no input; give an image or a folder: python detect.py photo.jpg")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 2 if it could not start, 1 if something failed."""
    args = parse_arguments(argv)
    for stream in (sys.stdout, sys.stderr):
        getattr(stream, "reconfigure", dict)(errors="backslashreplace")  # a class name must not crash it
    given = {name: getattr(args, name) for name in ("conf", "nms_iou", "max_det")}
    thresholds = {name: value for name, value in given.items() if value is not None}
    bad: list[Path] = []
    status = 2
    try:
        detector = Detector(args.model, threads=args.threads, fp16=args.fp16, amp=args.amp)
        out = Path(args.out or "results")
        targets = find_pictures(args.sources, out)
        of_camera = out / f"camera{args.camera}.jpg" if args.out and args.camera is not None else None
        outputs = [*targets.values(), *([of_camera] if of_camera else [])]
        written = {os.path.realpath(path) for path in (*outputs, args.json) if path}
        if inputs := written & {os.path.realpath(path) for path in (*targets, *detector.files())}:
            raise ValueError(f"{min(inputs)}: is also an input; choose another --out or --json")
        if args.json == "-":
            raise ValueError("--json -: is no file; name a file")
        if args.json and os.path.isfile(args.json):
            with open(args.json, "rb") as file:
                if file.read(9) not in (b"", b'{"path": '):
                    raise ValueError(f"--json {args.json}: exists and is no report of --json; name another")
        for path in outputs if not args.benchmark else ():
            if os.path.lexists(path) and not is_marked(path):
                reason = "exists and has no mark of detect.py, so it is not overwritten"
                raise ValueError(f"{path}: {reason}; choose another --out")
        if args.json and not os.path.isdir(os.path.dirname(args.json) or "."):
            raise ValueError(f"--json {args.json}: its folder does not exist")
        print(f"model {detector.path}  {len(detector.class_names)} classes", file=sys.stderr)
        with ExitStack() as files:
            if outputs and not args.benchmark:
                out.mkdir(parents=True, exist_ok=True)
            if args.json:
                files.enter_context(naming(args.json))  # around the file, whose closing may fail too
            status, lines = 1, None
            for path, frame in read_all([*targets], args.camera, bad):
                if args.benchmark:
                    benchmark(detector, frame, thresholds, args.benchmark)
                    break
                found = detector(frame, **thresholds)
                counts = Counter(detector.class_names[label] for label in found[2]).most_common()
                shown = " ".join(f"{count} {name}" for name, count in counts) or "0 objects"
                with naming("standard output"):
                    print(f"{path}  {shown}  {detector.milliseconds.sum():.0f} ms", flush=True)
                if args.json and lines is None:  # an older one stays if nothing could be read
                    lines = files.enter_context(open(args.json, "w", encoding="utf-8", buffering=1))
                if lines:
                    lines.write(json_line(path, frame, found, detector.class_names))
                if target := targets.get(path, of_camera):
                    write_picture(target, frame, found, detector.class_names)
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # a runtime may raise anything
        reason = str(error)
        if isinstance(error, OSError) and error.filename:
            reason = f"{error.filename}: {error.strerror}"
        line = f"error: {' '.join(reason.split())}"  # what failed is at the start, the advice at the end
        print(line if len(line) <= 400 else f"{line[:240]} ... {line[-150:]}", file=sys.stderr)
        return status
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
