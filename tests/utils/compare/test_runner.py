import os
import signal
import threading
import time

import pytest

from utils.cli.errors import Interrupted, UserError
from utils.cli.signals import StopSignals
from utils.compare import runner

SAVING = """
import signal, sys, time
def save(number, frame):
    open("saved", "w").close()
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
open("ready", "w").close()
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def scripts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runner, "_SCRIPTS", tmp_path)
    return tmp_path


def test_kill_reaches_the_run_which_has_the_time_to_save(scripts):
    (scripts / "train.py").write_text(SAVING)

    def kill_when_ready():
        while not (scripts / "ready").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=kill_when_ready)
    thread.start()
    with StopSignals(), pytest.raises(Interrupted) as caught:
        runner._call("train.py", [], "run 1", "failed")
    thread.join()
    assert caught.value.number == signal.SIGTERM
    assert (scripts / "saved").exists()


@pytest.mark.parametrize("number", [1, 2, 15])
def test_a_run_that_was_stopped_stops_the_comparison(scripts, number):
    (scripts / "train.py").write_text(f"raise SystemExit({128 + number})")
    with pytest.raises(Interrupted) as caught:
        runner._call("train.py", [], "run 1", "failed")
    assert caught.value.number == number


def test_a_run_that_fails_is_an_error(scripts):
    (scripts / "train.py").write_text("raise SystemExit(2)")
    with pytest.raises(UserError, match="this run failed"):
        runner._call("train.py", [], "run 1", "this run failed")
