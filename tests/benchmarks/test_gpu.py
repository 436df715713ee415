from __future__ import annotations

import pytest
import torch

from benchmarks.gpu import main
from utils.cli.console import run_command


def test_without_a_gpu_it_says_so_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert run_command(main, []) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: --device cuda: not on this machine, which has cpu")
    assert said.err.count("\n") == 1


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.usefixtures("room")
def test_every_combination_has_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    quick = ["--imgsz", "32", "--workers", "1", "--warmup", "0", "--seconds", "0"]
    few = ["--batch-size", "2", "3", "--images", "8", "--evaluated", "5"]
    assert main(["--device", "cpu", "--data", "data", *quick, *few]) == 0
    printed = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines() if "|" in line]
    combinations = [row[:3] for row in rows if row[0].isdecimal()]
    precisions = ("float32", "bfloat16")
    assert combinations == [[b, p, c] for c in ("no", "yes") for b in "23" for p in precisions]
    assert [row[0] for row in rows[-2:]] == list(precisions)
    assert all(float(row[1]) > 0 for row in rows[-2:])
    assert "Training at 32 px, 8 images, 1 workers" in printed  # of six
