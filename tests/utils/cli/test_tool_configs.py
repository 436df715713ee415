from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import data
from utils.cli.tool_configs import VERBS, AugmentConfig
from utils.data.augmentation import LEVELS

ROOT = Path(__file__).resolve().parents[3]
HEAVY = ("numpy", "cv2", "PIL", "torch", "torchvision", "matplotlib", "albumentations")
RUN = f"""
import sys, data
status = data.main(sys.argv[1:])
print([name for name in {HEAVY} if name in sys.modules])
sys.exit(status)
"""


@pytest.mark.parametrize(("verb", "hint"), [("chek", "did you mean check?"), ("x", "choose from check, ")])
def test_unknown_verb(verb: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert data.main([verb]) == 2
    assert hint in capsys.readouterr().err


def test_help_lists_the_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    assert data.main([]) == data.main(["--help"]) == data.main(["--version"]) == 0
    out = capsys.readouterr().out
    assert all(f"  {verb} " in out for verb in VERBS)
    assert "torch" in out  # of --version


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_a_help_text(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert data.main([verb, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"usage: python data.py {verb} " in out
    assert VERBS[verb].example.startswith(f"python data.py {verb} ")


@pytest.mark.parametrize(
    ("argv", "status", "said"),
    [
        (["check", "--help"], 0, "--decode"),
        (["check", "--decoed"], 2, "did you mean --decode?"),
        (["check", "--data", "gone"], 2, "gone: no such folder; give a VOCdevkit"),
        (["convert", "gone", "--out", "new"], 2, "gone: no such file or folder"),
        (["convert", ".", "--images", "gone", "--out", "new"], 2, "--images gone: no such folder"),
    ],
)
def test_usage_is_answered_without_heavy_imports(argv: list[str], status: int, said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN, *argv], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == status
    assert said in done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_augment_offers_every_level_but_none() -> None:
    (field,) = (f for f in AugmentConfig.__dataclass_fields__.values() if f.name == "augment")
    assert {*field.metadata["choices"], "none"} == set(LEVELS)
