"""Saying what is wrong with data: ten of a kind, then their number, then one error."""

from __future__ import annotations

from collections.abc import Sequence

from utils.cli.console import warn
from utils.cli.errors import UserError

SHOWN = 10  # of a kind on the console; the rest is counted


def warn_each(items: Sequence[object], prefix: str = "", advice: str = "") -> None:
    """Warn of the first ten items and of how many more there are.

    Args:
        items: their `str` is the line.
        prefix: stands before each.
        advice: how to see the rest, for the end of a long list.
    """
    for item in items[:SHOWN]:
        warn(f"{prefix}{item}")
    if len(items) > SHOWN:
        warn(f"… and {len(items) - SHOWN} more{advice}")


def refuse(*kinds: Sequence[object], advice: str = "") -> None:
    """End with an error if there is a fault; several are listed first, each kind by itself.

    Raises:
        UserError: names the first fault and the number of the others.
    """
    faults = [item for kind in kinds for item in kind]
    if len(faults) > 1:
        for kind in kinds:
            warn_each(kind, advice=advice)
    if faults:
        more = f" (and {len(faults) - 1} more, see above)" if len(faults) > 1 else ""
        raise UserError(f"{faults[0]}{more}; mend the data or add --skip-bad")
