"""Modules that each command loads: parsing loads nothing heavy, verbs of data.py that only read no torch."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.voc_folder import make_voc_folder

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("numpy", "cv2", "PIL", "torch", "torchvision", "matplotlib", "scipy")
# Runs a script's main and prints which of the modules named in the first argument it has loaded.
RUN = """
import sys
modules, script, *arguments = sys.argv[1:]
status = __import__(script).main(arguments)
print()
print("status", status, "loaded", *sorted(set(modules.split()) & set(sys.modules)))
"""
SCRIPTS = ("train", "predict", "evaluate", "export", "compare", "data", "app")
VERBS = {
    "check": ["--data", "voc"],
    "stats": ["--data", "voc"],
    "show": ["--data", "voc"],
    "split": ["--data", "voc"],
    "anchors": ["--data", "voc", "--number", "2"],
    "convert": ["voc", "--out", "coco"],
}


def run(folder: Path, modules: tuple[str, ...], *command: str) -> str:
    """Return the last line of the output: status and loaded modules."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", RUN, " ".join(modules), *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize("flag", ["--help", "--help-all", "--version", "--no-such-flag"])
@pytest.mark.parametrize("script", SCRIPTS)
def test_parsing_loads_nothing_heavy(script: str, flag: str, tmp_path: Path) -> None:
    status = 2 if flag == "--no-such-flag" else 0
    verb = ["check"] if script == "data" else []
    assert run(tmp_path, HEAVY, script, *verb, flag) == f"status {status} loaded"


@pytest.mark.parametrize("script", SCRIPTS)
def test_missing_packages_are_one_line(script: str, tmp_path: Path) -> None:
    command = [sys.executable, "-S", ROOT / f"{script}.py", "--help"]  # -S: without those that are installed
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    advice = "activate the environment (source .venv/bin/activate) or pip install -r requirements.txt"
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: No module named 'tqdm'; {advice}\n"


@pytest.mark.parametrize(
    "command",
    [
        "train --data gone",
        "train --weights gone.pth --demo",
        "train --resume gone.pth",
        "train --data . --weights none --classes gone.txt",
        "train --data . --weights none --anchors gone.txt",
        "compare --data gone",
        "evaluate --weights gone.pth",
        "evaluate --data gone",
        "evaluate --data . --weights voc --classes gone.txt",
        "evaluate --data . --weights voc --cfg gone.cfg",
        "predict gone.jpg",
        "predict data.txt --anchors gone.txt",
        "predict data.txt --weights gone.pth",
        "export --weights gone.pth",
        "export --data gone",
        "export --anchors data.txt",
        "app --label gone",
        "app --data gone",
        "app --weights gone.pth",
        "data check --data gone",
        "data convert gone.json --out new",
    ],
)
def test_a_missing_input_is_found_before_anything_heavy_is_loaded(command: str, tmp_path: Path) -> None:
    (tmp_path / "data.txt").write_text("")
    assert run(tmp_path, HEAVY, *command.split()) == "status 2 loaded"


@pytest.mark.parametrize("verb", VERBS)
def test_verbs_that_only_read_data_load_no_torch(verb: str, tmp_path: Path) -> None:
    make_voc_folder(tmp_path / "voc", train_images=6, val_images=2)
    if verb == "split":  # it does not overwrite lists
        shutil.rmtree(tmp_path / "voc" / "ImageSets")
    command = ("data", verb, *VERBS[verb])
    assert run(tmp_path, ("torch", "torchvision"), *command) == "status 0 loaded"


def test_the_page_of_app_is_up_before_torch_is_imported(tmp_path: Path) -> None:
    code = "import sys, utils.app.label_session, utils.app.offer; sys.exit('torch' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment).returncode == 0
