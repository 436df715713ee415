"""The check that Python has the packages of this project; every script imports it before what needs them."""

from __future__ import annotations

import sys

from utils.cli.error_messages import explain_missing_module

try:
    import tqdm  # noqa: F401
    import yaml  # noqa: F401 (the first packages that a script needs; run_command explains the others)
except ModuleNotFoundError as error:
    sys.exit(f"error: {explain_missing_module(error)}")
