"""Every command in a hostile environment: no network, no HOME, a read-only checkout with an odd path."""

from __future__ import annotations

import inspect
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import train
from tests.faults.test_rules import give_up_rights
from tests.voc_folder import make_voc_folder

CHECKOUT = Path(train.__file__).parent
DATA = "Bil der é 数据"
ON_CPU = ("--device", "cpu")
ON_DATA = ("--data", DATA, *ON_CPU)
QUICK = ("--imgsz", "64", "--batch-size", "2", "--epochs", "1", "--workers", "2", "--weights", "none")
COMMANDS = {
    "data": ("check", "--data", DATA),
    "train": (*ON_DATA, *QUICK),
    "evaluate": (*ON_DATA, "--weights", "last", "--split", "val"),
    "predict": (f"{DATA}/JPEGImages", "--weights", "last", *ON_CPU),
    "export": ("--weights", "last", "--format", "onnx"),
}
# One interpreter for all the commands, since each would import torch anew.
IN_TURN = f"""
import ctypes, importlib, os, struct, sys
{inspect.getsource(give_up_rights)}
give_up_rights()  # root may write everywhere, again with each program that it starts
assert not os.access(sys.argv[1], os.W_OK)
sys.path.insert(0, sys.argv[1])
for name, argv in {COMMANDS!r}.items():
    assert importlib.import_module(name).main([*argv]) == 0, name
"""
# Writes down and refuses what would leave the machine.
NO_NETWORK = """
import socket

def refuse(*args, **options):
    open("NETWORK", "a").write(repr(args))
    raise OSError("no network")

class Socket(socket.socket):
    def connect(self, address):
        return super().connect(address) if self.family == socket.AF_UNIX else refuse(address)

socket.socket, socket.getaddrinfo, socket.create_connection = Socket, refuse, refuse
"""


@pytest.mark.slow
def test_every_command_runs_in_a_hostile_environment(tmp_path: Path) -> None:
    checkout, folder, site = tmp_path / "Prüf stand 模型", tmp_path / "Arbeit é", tmp_path / "site"
    left_out = (".*", "runs", "tests", "docs", "benchmarks", "VOCdevkit", "__pycache__", "*.weights", "*.pth")
    shutil.copytree(CHECKOUT, checkout, ignore=shutil.ignore_patterns(*left_out))
    folder.mkdir()
    site.mkdir()
    make_voc_folder(folder / DATA, 6, 2)
    (folder / "in_turn.py").write_text(IN_TURN, encoding="utf-8")
    (site / "sitecustomize.py").write_text(NO_NETWORK)
    before = {path: path.stat().st_mode for path in (checkout, *checkout.rglob("*"))}
    try:
        for path, mode in before.items():
            path.chmod(mode & ~0o222)
        done = subprocess.run(
            [sys.executable, "in_turn.py", str(checkout)],
            cwd=folder,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(site)},
            capture_output=True,
            text=True,
            check=False,
            umask=0o077,
        )
    finally:
        for path, mode in before.items():
            path.chmod(mode)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder / "NETWORK").exists()
    assert not list(tmp_path.rglob("*.tmp"))
    assert {path.stat().st_mode & 0o077 for path in (folder / "runs").rglob("*")} == {0}
