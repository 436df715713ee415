from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.voc_folder import make_voc_folder

ROOT = Path(__file__).resolve().parents[3]
FLAGS = {
    "check": ["--data", "voc"],
    "stats": ["--data", "voc"],
    "show": ["--data", "voc"],
    "split": ["--data", "voc"],
    "anchors": ["--data", "voc", "--number", "2"],
    "convert": ["voc", "--out", "coco"],
}
# Runs the verb without data.py, whose other verbs need torch.
RUN = """
import importlib, sys
from utils.cli.parser import parse_config
verb = importlib.import_module(f"utils.tools.{sys.argv[1]}")
verb.run(parse_config(verb.CONFIG, sys.argv[2:], prog="", description="", example=""))
print("imported:", *sorted({"torch", "torchvision"} & set(sys.modules)))
"""


@pytest.mark.parametrize("verb", FLAGS)
def test_verbs_that_only_read_data_import_no_torch(verb: str, tmp_path: Path) -> None:
    make_voc_folder(tmp_path / "voc", train_images=6, val_images=2)
    if verb == "split":  # it does not overwrite lists
        shutil.rmtree(tmp_path / "voc" / "ImageSets")
    command = [sys.executable, "-c", RUN, verb, *FLAGS[verb]]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("imported:\n")
