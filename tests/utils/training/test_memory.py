from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from utils.training import memory

ROOT = Path(__file__).resolve().parents[3]
COUNT_FAULTS = """
import resource, sys, torch
from utils.training.memory import keep_freed_memory
kept = sys.argv[1] == "keep" and keep_freed_memory()
for step in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(16 * 2**20)  # 64 MiB
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def count_faults(choice: str) -> tuple[bool, int]:
    command = [sys.executable, "-c", COUNT_FAULTS, choice]
    kept, faults = subprocess.run(
        command, cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split()
    return kept == "True", int(faults)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="glibc's switch")
def test_a_block_that_was_freed_is_not_cleared_again_by_the_system() -> None:
    kept, faults = count_faults("keep")
    if not kept:
        pytest.skip("this C library has no mallopt")
    _, usual = count_faults("no")
    assert faults * 10 < usual


def test_elsewhere_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory.sys, "platform", "win32")
    assert not memory.keep_freed_memory()
