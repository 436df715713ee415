"""A bad file takes little more time and memory than a good one."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import data
from tests.faults.conftest import MakeWorkspace
from tests.faults.rows import ROWS
from tests.faults.workspace import ON_DATA, Workspace, snapshot
from tests.training_room import errors_in

# Reports its own peak: that which the system keeps of a child starts at the size of the parent.
_PROGRAM = """
import json, sys, time
import data
start = time.process_time()
status = data.main(sys.argv[2:])
seconds = time.process_time() - start
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM:"))
with open(sys.argv[1], "w") as file:
    json.dump({"seconds": seconds, "megabytes": peak / 1000}, file)
sys.exit(status)
"""
ROWS_AT_RISK = (
    "xml_entity_bomb xml_quadratic xml_huge xml_deep xml_many_objects img_bomb img_bomb_warn img_header_lies"
)
# Over what the data without a fault take; 2 s and 200 MB where nothing else is said.
MOST_SECONDS, MOST_MEGABYTES = {"xml_many_objects": 10.0}, {"img_bomb": 500.0}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.exhaustive,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc"),
]


@dataclass(frozen=True)
class Cost:
    seconds: float
    megabytes: float


def measured(workspace: Workspace, status: int) -> tuple[Cost, str]:
    """Run data.py check in a process of its own; returns what it took and its stderr."""
    before = snapshot(workspace.folder)
    cost = workspace.folder / "runs" / "cost.json"
    cost.parent.mkdir(exist_ok=True)
    words = [sys.executable, "-c", _PROGRAM, str(cost), "check", *ON_DATA]
    environment = {"PYTHONPATH": str(Path(data.__file__).parent), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode == status, done.stderr
    assert snapshot(workspace.folder) == before
    return Cost(**json.loads(cost.read_text())), done.stderr


@pytest.fixture(scope="module")
def usual() -> dict[str, Cost]:
    """Keep what the data without a fault take."""
    return {}


@pytest.mark.parametrize("name", ROWS_AT_RISK.split())
def test_a_file_is_refused_or_read_for_little(
    make_workspace: MakeWorkspace, usual: dict[str, Cost], name: str
) -> None:
    if "control" not in usual:
        usual["control"], _ = measured(make_workspace(), 0)
    workspace = make_workspace(name)
    is_fault = ROWS[name].outcome == "image"
    cost, err = measured(workspace, 2 if is_fault else 0)
    if is_fault:
        (line,) = errors_in(err)
        assert ROWS[name].says.format(id=workspace.image_id) in line
    assert cost.seconds - usual["control"].seconds < MOST_SECONDS.get(name, 2.0)
    assert cost.megabytes - usual["control"].megabytes < MOST_MEGABYTES.get(name, 200.0)
