from __future__ import annotations

import socket
from importlib.util import find_spec
from pathlib import Path

import pytest

import app
from utils.cli import app_config
from utils.cli.app_config import HOST, AppConfig
from utils.cli.errors import UserError


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weights": ("a.pth",) * 5}, "--weights: takes 1 to 4, got 5"),
        ({"port": 0}, "--port 0: must be"),
        ({"imgsz": (100, 100)}, "--imgsz 100"),
        ({"phi": ("se", "nonsense")}, "--phi nonsense: unknown attention"),
        ({"label": " "}, "--label ' ': is empty"),
    ],
)
def test_bad_values_are_named(settings, message):
    with pytest.raises(UserError, match=message):
        AppConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"label": "gone"}, "--label gone: no such folder"),
        ({"data": "gone"}, "gone: no such folder"),
        ({"weights": ("gone.pth",)}, "gone.pth: no such weights file"),
    ],
)
def test_missing_inputs_are_named(settings, message, monkeypatch):
    monkeypatch.setattr(app_config, "find_spec", lambda name: object())
    with pytest.raises(UserError, match=message):
        AppConfig(**settings).check_inputs()


def test_a_port_in_use_is_named(monkeypatch):
    monkeypatch.setattr(app_config, "find_spec", lambda name: object())
    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=rf"--port {port}: .*; stop what uses it, or choose another port"):
            AppConfig(port=port).check_inputs()
    AppConfig(port=port).check_inputs()


def test_missing_packages_are_named(monkeypatch, capsys):
    monkeypatch.setattr(app_config, "find_spec", lambda name: None if name == "gradio" else object())
    assert app.main([]) == 2
    assert capsys.readouterr().err == ("error: app.py: needs gradio; pip install -r requirements-app.txt\n")


@pytest.mark.skipif(not find_spec("gradio"), reason="gradio is not installed")
def test_a_folder_without_images_is_named(tmp_path: Path, capsys):
    assert app.main(["--label", str(tmp_path), "--no-browser", "--port", "17861"]) == 2
    assert f"error: {tmp_path}: no images in this folder" in capsys.readouterr().err
