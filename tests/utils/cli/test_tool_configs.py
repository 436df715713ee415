from __future__ import annotations

from pathlib import Path

import pytest

import data
from utils.cli.shared_config import AUGMENT_LEVELS
from utils.cli.tool_configs import VERBS
from utils.data.augmentation import LEVELS


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
    ("argv", "reason"),
    [
        (["check", "--decoed"], "did you mean --decode?"),
        (["check", "--data", "gone"], "gone: no such folder, relative to the current folder /"),
        (["convert", "gone", "--out", "new"], "gone: no such file or folder"),
        (["convert", ".", "--images", "gone", "--out", "new"], "--images gone: no such folder"),
        (["convert", ".", "--out", "new"], "--out new: lies in ., which is only read"),
        (["augment", "--data", ".", "--out", "new"], "--out new: lies in ., which is only read"),
    ],
)
def test_usage_errors(
    argv: list[str],
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert data.main(argv) == 2
    assert reason in capsys.readouterr().err


def test_every_level_but_none_is_offered() -> None:
    assert {*AUGMENT_LEVELS, "none"} == set(LEVELS)
