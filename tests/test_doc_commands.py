"""The commands of README and docs run as a newcomer types them, in a folder that has what the page names.

Training is shortened. What cannot run here is in NOT_RUN with the reason; test_docs.py checks its flags.
"""

from __future__ import annotations

import importlib
import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.layout_folders import Layout, voc
from tests.test_docs import PAGES, ROOT, commands
from tests.utils.data.conftest import save_picture
from tests.video_files import make_video
from utils.cli.inputs import COCO_WEIGHTS
from utils.data.voc_xml import VocObject, write_annotation

SHORT = ["--epochs", "1", "--imgsz", "64", "--batch-size", "4", "--workers", "0"]
NOT_RUN = {
    r"data\.py download|https://": "needs the network",
    r"predict\.py 0 ": "needs a camera and a screen; tests/test_predict_view.py",
    r"app\.py": "serves until it is stopped; tests/app",
    r"torchrun": "several processes or machines; tests/test_train_processes.py",
    r"train\.py --data new_images": "needs labels from a person",
    r"my_export|SOURCE": "any labeling tool's export; tests/utils/formats/test_tool_exports.py",
}
if not COCO_WEIGHTS.is_file():
    NOT_RUN[r"--weights coco"] = "downloads the weights"
QUICK = ("README.md", "docs/data.md", "VOCdevkit/README.md")  # the others take up to a minute each


def run(line: str) -> None:
    script, *argv = shlex.split(line.replace("$DATA/", ""), comments=True)[1:]
    if argv[:1] == ["split"]:  # it writes lists only where there are none
        for lists in list(Path().rglob("ImageSets")):
            shutil.rmtree(lists)
    if script == "train.py" and "--resume" in argv:
        argv += ["--epochs", "2"]
    elif script == "train.py" or (script == "compare.py" and not {"--no-train", "--from"} & {*argv}):
        argv += [*SHORT, *([] if "--weights" in argv else ["--weights", "none"])]
        argv += ["--seeds", "0"] if script == "compare.py" else []
    if "--freeze-epochs" in argv:
        argv += ["--freeze-epochs", "1"]
    assert importlib.import_module(script.removesuffix(".py")).main(argv) == 0, line


def write_images(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        save_picture(folder / name, 80, 60, number)
        objects = [
            VocObject("cat", (2, 3, 10 + 2 * number, 20 + number)),
            VocObject("cat", (5, 6, 20, 9 + number)),
        ]
        write_annotation((folder / name).with_suffix(".xml"), name, 80, 60, objects)


def write_trained() -> None:
    """The runs that `--weights last` and `--from` name, with the data that they came from."""
    run("python train.py --data my_images --phi se")
    run("python train.py --data my_images")


def write_darknet() -> None:
    """What Darknet's users bring: a .cfg with its .weights, and the names of the classes."""
    run("python export.py --weights last --format darknet --name darknet")
    (weights,) = Path("runs/export/darknet").rglob("*.weights")
    for folder in ("backup", "cfg", "data", "."):
        Path(folder).mkdir(exist_ok=True)
    for name in ("backup/custom_best.weights", "custom_best.weights"):
        Path(name).write_bytes(weights.read_bytes())
    for name in ("cfg/custom.cfg", "custom.cfg"):
        Path(name).write_bytes(weights.with_suffix(".cfg").read_bytes())
    for name in ("data/obj.names", "obj.names"):
        Path(name).write_text("cat\n")


def write_onnx() -> None:
    run("python export.py --weights last --format onnx")


def write_published() -> None:
    run("python train.py --data my_images --phi cbam")
    run("python export.py --weights last --format published --name published")
    (weights,) = Path("runs/export/published").rglob("*.pth")
    weights.rename("yolov4_tiny_weights_voc_CBAM.pth")


def write_coco() -> None:
    write_images(Path("images"), *(f"{number}.jpg" for number in range(20)))
    images = [{"id": n, "file_name": f"{n}.jpg", "width": 80, "height": 60} for n in range(20)]
    boxes = [{"id": n, "image_id": n, "category_id": 1, "bbox": [2, 3, 10, 12]} for n in range(20)]
    content = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "cat"}]}
    Path("coco.json").write_text(json.dumps(content))


def write_devkit() -> None:
    for year in ("2007", "2012"):
        names = [f"{year}_{number}" for number in range(8)]
        lists = {"train": names[:4], "val": names[4:6], "trainval": names[:6], "test": names[6:]}
        texts = {f"ImageSets/Main/{split}.txt": "\n".join(ids) for split, ids in lists.items()}
        Layout(voc(*names), {}, texts=texts).write(Path(f"VOCdevkit/VOC{year}"))


def write_my_voc() -> None:
    names = [f"{clip}_frame{n}" for clip in "abcdefgh" for n in range(3)]
    Layout(voc(*names), {}, texts={"ImageSets/Main/test.txt": "\n".join(names)}).write(Path("my_voc"))


def write_pictures() -> None:
    for name in ("street.jpg", "photo.jpg", "aerial.jpg", "folder/a.jpg", "more/b.jpg", "new_images/c.jpg"):
        Path(name).parent.mkdir(exist_ok=True)
        pixels = np.random.default_rng(0).integers(0, 255, (150, 200, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(name)
    make_video(Path("clip.mp4"), 20)


def furnish(typed: str, page: str) -> None:
    """Write the files that the typed commands of a page name, and the code that the page shows."""
    parts = ["", "test/", *(["val/"] if "--split val" in typed else [])]
    write_images(Path("my_images"), *(f"{part}{n}.jpg" for part in parts for n in range(4 if part else 12)))
    write_pictures()
    write_devkit()
    write_trained()
    makers: dict[str, Callable[[], None]] = {
        r"coco\.json": write_coco,
        r"custom_best": write_darknet,
        r"voc_CBAM\.pth": write_published,
        r"--data my_voc": write_my_voc,
        r"runs/export/exp": write_onnx,
    }
    for needed, write in makers.items():
        if re.search(needed, typed) and not (write is write_my_voc and "--out my_voc" in typed):
            write()
    for name, code in re.findall(r"```python\n# (\w+\.py)\n(.*?)```", page, flags=re.DOTALL):
        Path(name).write_text(code)


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(
            page,
            id=str(page.relative_to(ROOT)),
            marks=[] if str(page.relative_to(ROOT)) in QUICK else pytest.mark.exhaustive,
        )
        for page in PAGES
        if page.parent.name != "results"  # recorded runs
    ],
)
def test_commands_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    text = page.read_text(encoding="utf-8")
    lines = [line for line in commands(text) if not any(re.search(known, line) for known in NOT_RUN)]
    if lines:
        furnish("\n".join(lines), text)
    for line in lines:
        run(line)
