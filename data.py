"""Data set tools: python data.py check --data VOCdevkit."""

from __future__ import annotations

import sys

import utils.cli.packages  # noqa: F401 (says in one line if some are missing)
from utils.cli.console import run_command
from utils.cli.errors import UserError
from utils.cli.parser import answer_information, nearest, parse_config
from utils.cli.tool_configs import VERBS


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(_run_verb, argv)


def _run_verb(argv: list[str]) -> int:
    name, *rest = argv or ["--help"]
    if name not in VERBS:
        answer_information([name], lambda full: _help())
        near = nearest(name, list(VERBS))
        advice = f"did you mean {near}?" if near else f"choose from {', '.join(VERBS)}"
        raise UserError(f"data.py {name}: no such subcommand; {advice}")
    verb = VERBS[name]
    config = parse_config(
        verb.config, rest, prog=f"data.py {name}", description=verb.description, example=verb.example
    )
    config.check_inputs()
    match name:  # numpy, OpenCV and torch are imported only now
        case "check":
            from utils.tools.check import run
        case "stats":
            from utils.tools.stats import run
        case "show" if config.augment:  # needs torch
            from utils.tools.show_augmented import run
        case "show":
            from utils.tools.show import run
        case "split":
            from utils.tools.split import run
        case "anchors":
            from utils.tools.anchors import run
        case "augment":
            from utils.tools.augment import run
        case "convert":
            from utils.tools.convert import run
        case "download":
            from utils.tools.download import run
    return run(config)


def _help() -> list[str]:
    return [
        "usage: python data.py SUBCOMMAND [flags]",
        "",
        "Tools for a data set in VOC format. They only read it; split adds its lists.",
        "",
        *(f"  {name:<10} {verb.description}" for name, verb in VERBS.items()),
        "",
        "python data.py SUBCOMMAND --help shows its flags; python data.py --version the versions in use.",
        "",
        "example: python data.py check --data VOCdevkit",
    ]


if __name__ == "__main__":
    sys.exit(main())
