"""Look after a data set: python data.py check --data VOCdevkit."""

from __future__ import annotations

import difflib
import sys
from types import ModuleType

from utils.cli.console import run_command
from utils.cli.errors import UserError
from utils.cli.parser import parse_config
from utils.tools import anchors, augment, check, convert, download, show, split, stats

VERBS: dict[str, ModuleType] = {
    "check": check,
    "stats": stats,
    "show": show,
    "split": split,
    "anchors": anchors,
    "augment": augment,
    "convert": convert,
    "download": download,
}


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    return run_command(_curate, argv)


def _curate(argv: list[str]) -> int:
    verb, *rest = argv or ["--help"]
    if verb in ("-h", "--help", "--help-all"):
        print("\n".join(_help()))
        return 0
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, n=1)
        advice = f"did you mean {near[0]}?" if near else f"choose from {', '.join(VERBS)}"
        raise UserError(f"data.py {verb}: no such verb; {advice}")
    module = VERBS[verb]
    config = parse_config(
        module.CONFIG, rest, prog=f"data.py {verb}", description=module.DESCRIPTION, example=module.EXAMPLE
    )
    return module.run(config)


def _help() -> list[str]:
    lines = [f"  {verb:<10} {module.DESCRIPTION}" for verb, module in VERBS.items()]
    return [
        "usage: python data.py VERB [flags]",
        "",
        "Look after a data set in VOC format; only split writes into it, the lists that it is asked for.",
        "",
        *lines,
        "",
        "python data.py VERB --help shows the flags of a verb",
        "",
        "example: python data.py check --data VOCdevkit",
    ]


if __name__ == "__main__":
    sys.exit(main())
