"""Saying what is wrong with data: ten of a kind, then their number, then one error."""

from __future__ import annotations

from collections.abc import Sequence

from utils.console import warn
from utils.data.scan import SHOWN
from utils.errors import UserError


def warn_each(lines: Sequence[str], prefix: str = "") -> None:
    """Warn of the first ten lines and of how many more there are."""
    for line in lines[:SHOWN]:
        warn(prefix + line)
    if len(lines) > SHOWN:
        warn(f"… and {len(lines) - SHOWN} more")


def refuse(*kinds: Sequence[str]) -> None:
    """End with an error if there is a fault; several are listed first, each kind by itself.

    Raises:
        UserError: names the first fault and the number of the others.
    """
    faults = [line for kind in kinds for line in kind]
    if len(faults) > 1:
        for kind in kinds:
            warn_each(kind)
    if faults:
        more = f" (and {len(faults) - 1} more, see above)" if len(faults) > 1 else ""
        raise UserError(f"{faults[0]}{more}; mend the data or add --skip-bad")
