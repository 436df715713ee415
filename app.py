"""A local page to compare weights on images and to label images: python app.py --label my_images."""

from __future__ import annotations

import os
import sys
import tempfile
from types import ModuleType

import utils.cli.packages  # noqa: F401 (says in one line if some are missing)
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
    with tempfile.TemporaryDirectory(prefix="page-") as temporary:
        os.environ["GRADIO_TEMP_DIR"] = os.path.realpath(temporary)  # gradio reads it when it is imported
        from utils.app.server import serve

        return serve(config, _import_look)


def _import_look() -> ModuleType:
    """Import torch and what needs it, which takes seconds; the page calls this when it is up."""
    from utils.app import look

    return look


if __name__ == "__main__":
    sys.exit(main())
