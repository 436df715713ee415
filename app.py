"""A local page to compare weights on images and to label images: python app.py --label my_images."""

from __future__ import annotations

import sys

from utils.cli.app_config import AppConfig
from utils.cli.console import run_command
from utils.cli.parser import parse_config


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(_serve, argv)


def _serve(argv: list[str]) -> int:
    config = parse_config(
        AppConfig,
        argv,
        prog="app.py",
        description="Open a page in the browser to compare weights on images and to label images.",
        example="python app.py --label my_images --weights last",
    )
    config.check_inputs()
    from utils.app.server import serve  # imports gradio, and later torch

    return serve(config)


if __name__ == "__main__":
    sys.exit(main())
