from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from utils.cli import console
from utils.cli.console import log, mute, one_line, progress, run_command, warn
from utils.cli.errors import Interrupted, UserError

ROOT = Path(__file__).resolve().parents[3]


def run_raising(error, *argv):
    def function(arguments):
        raise error

    return run_command(function, list(argv))


def test_done_is_zero(capsys):
    assert run_command(lambda argv: None, []) == 0
    assert run_command(lambda argv: 1, []) == 1
    assert run_command(lambda argv: len(argv), ["a", "b"]) == 2
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (UserError("a.xml: broken; mend it"), 2, "error: a.xml: broken; mend it\n"),
        (UserError("disk full", exit_code=1), 1, "error: disk full\n"),
        (UserError("two\nlines\tof a\x1b[31m"), 2, "error: two lines\\tof a\\x1b[31m\n"),
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
        (
            MemoryError(),
            1,
            "error: out of memory; try a smaller --batch-size or --imgsz, or fewer --workers\n",
        ),
        (FileNotFoundError(2, "No such file", "b.jpg"), 1, "error: b.jpg: No such file\n"),
        (
            ModuleNotFoundError("No module named 'torch'"),
            1,
            "error: No module named 'torch'; activate the environment (source .venv/bin/activate) or "
            "pip install -r requirements.txt\n",
        ),
        (KeyError("x"), 1, "error: unexpected KeyError: 'x'; --debug shows the traceback\n"),
        (BrokenPipeError(), 1, ""),
        (SystemExit(0), 0, ""),
        (SystemExit(143), 143, ""),
        (Interrupted(15, "saved last.pth"), 143, "interrupted: saved last.pth\n"),
        (Interrupted(2), 130, "interrupted: nothing was saved\n"),
        (
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "),
            1,
            "error: a data worker died (DataLoader worker (pid 7) is killed by signal: Killed.): it was "
            "killed, or the machine ran out of memory; try fewer --workers, or 0\n",
        ),
    ],
)
def test_failure_is_one_line_and_a_status(capsys, error, status, line):
    assert run_raising(error) == status
    assert capsys.readouterr().err == line


def test_long_error_keeps_file_and_advice(capsys):
    run_raising(UserError(f"a.xml: {'x' * 1000}; mend it"))
    line = capsys.readouterr().err.rstrip("\n")
    assert len(line) <= 400
    assert line.startswith("error: a.xml: x")
    assert line.endswith("x; mend it")


def test_debug_shows_the_traceback(capsys):
    run_raising(UserError("no"), "--debug")
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert shown.endswith("error: no\n")


@pytest.mark.parametrize(
    ("message", "expected"),
    [("", ""), ("日本 a\u00e9", "日本 a\u00e9"), ("a\nb\x00", "a\\nb\\x00"), ("\udcff", "\\udcff")],
)
def test_one_line(message, expected):
    assert one_line(message) == expected


def test_log_and_warn_go_to_stderr(capsys):
    log("said of \u202ename")
    warn("odd\nname")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "said of \\u202ename\nwarning: odd\\nname\n"


@pytest.mark.parametrize(
    ("items", "interval", "lines"),
    [
        ([], 0.0, []),
        ("ab", 100.0, []),
        ("ab", 0.0, ["epoch 1  1/2 images  loss 3", "epoch 1  2/2 images  loss 3"]),
    ],
)
def test_progress_is_lines_when_stderr_is_no_terminal(capsys, monkeypatch, items, interval, lines):
    monkeypatch.setattr(console, "_LINE_INTERVAL", interval)
    assert list(progress(items, "epoch 1", status=lambda: "loss 3")) == list(items)
    assert capsys.readouterr().err.splitlines() == lines


def test_progress_is_a_bar_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert list(progress(iter("ab"), "epoch 1", total=2)) == ["a", "b"]
    assert "epoch 1" in capsys.readouterr().err


def run_python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        check=False,
    )


def test_non_ascii_output_survives_an_ascii_terminal():
    code = (
        "from utils.cli.console import run_command, warn\n"
        "raise SystemExit(run_command(lambda argv: (print('猫'), warn('犬'))[1], []))"
    )
    done = run_python(code, PYTHONIOENCODING="ascii", LC_ALL="C")
    assert done.returncode == 0
    assert done.stdout == b"\\u732b\n"
    assert done.stderr == b"warning: \\u72ac\n"


def test_closed_pipe_ends_quietly(tmp_path):
    script = tmp_path / "talk.py"
    script.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "from utils.cli.console import run_command\n"
        "sys.exit(run_command(lambda argv: [print('line') for _ in range(100_000)] and 0, []))\n"
    )
    with subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
    assert process.returncode == 1
    assert errors == b""


# A stderr that nobody reads any more: a terminal that was closed, `2>&1 | head`.

TALK = (
    "import sys\n"
    "from utils.cli import console\n"
    "from utils.cli.console import log, progress, run_command, warn\n"
    "console._LINE_INTERVAL = 0.0\n"
    "def work(argv):\n"
    "    for step in progress(range(50), 'epoch'):\n"
    "        log('line ' * 100)\n"
    "        warn('line')\n"
    "    print('done')\n"
    "sys.exit(run_command(work, []))\n"
)


def test_a_broken_stderr_does_not_stop_the_work():
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-c", TALK], cwd=ROOT, stdout=subprocess.PIPE, stderr=writing, check=False
    )
    os.close(writing)
    assert done.stdout == b"done\n"
    assert done.returncode == 0


def test_a_failure_without_stderr_still_has_its_status():
    reading, writing = os.pipe()
    os.close(reading)
    code = (
        "import sys\nfrom utils.cli.console import log, run_command\nfrom utils.cli.errors import UserError\n"
        "def work(argv):\n    log('said')\n    raise UserError('no', exit_code=2)\n"
        "sys.exit(run_command(work, []))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stderr=writing, check=False)
    os.close(writing)
    assert done.returncode == 2


def test_a_stderr_that_breaks_on_the_way_is_pointed_at_nothing(monkeypatch, tmp_path):
    file = open(tmp_path / "log.txt", "w", encoding="utf-8", buffering=1)  # noqa: SIM115 (closed below)

    def full(*_):
        raise OSError(28, "No space left on device")

    class Broken:
        write = flush = staticmethod(full)
        fileno = file.fileno

    monkeypatch.setattr(sys, "stderr", Broken())
    log("lost")
    log("lost")
    file.write("lost too")  # the descriptor leads nowhere now
    file.close()
    assert (tmp_path / "log.txt").read_text() == ""


def test_one_of_several_processes_speaks_and_all_of_them_fail_aloud(capsys, monkeypatch):
    monkeypatch.setattr(console, "_is_muted", False)
    monkeypatch.setattr(console, "_LINE_INTERVAL", 0.0)
    mute()
    log("said")
    warn("odd")
    assert list(progress("ab", "epoch 1")) == ["a", "b"]
    assert capsys.readouterr().err == ""
    assert run_raising(UserError("no")) == 2
    assert capsys.readouterr().err == "error: no\n"


def test_kill_ends_any_command_in_one_line(capsys):
    before = signal.getsignal(signal.SIGTERM)
    assert run_command(lambda argv: os.kill(os.getpid(), signal.SIGTERM), []) == 143
    assert capsys.readouterr().err == "interrupted: nothing was saved\n"
    assert signal.getsignal(signal.SIGTERM) == before


# Standard streams that were closed before the program began: >&-, <&-, as some schedulers do.


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_do_not_stop_the_work(tmp_path, closed):
    code = (
        "import os, sys\nfrom utils.cli.console import log, progress, run_command\n"
        "def work(argv):\n"
        "    print('done')\n"
        "    log('said')\n"
        "    assert (sys.stdout.fileno(), sys.stderr.fileno()) == (1, 2)\n"  # None fails in packages
        "    with open(argv[0], 'w') as file:\n"
        "        assert file.fileno() > 2\n"  # what a C library prints would go into it
        "        file.writelines(progress('ab', 'epoch'))\n"
        "sys.exit(run_command(work))\n"
    )
    command = f'exec "{sys.executable}" -c "$0" written.txt {closed}'
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(["sh", "-c", command, code], cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 0
    assert (tmp_path / "written.txt").read_text() == "ab"


def test_progress_in_a_program_without_a_standard_error(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    assert list(progress("ab", "image")) == ["a", "b"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a device that is always full")
@pytest.mark.parametrize("unbuffered", ["", "1"])  # in many containers it is 1
@pytest.mark.parametrize(
    "work",
    [
        "print('line')",
        "print('line', flush=True)",
        "[print('line') for _ in range(10_000)]",
        "print('help'); raise SystemExit(0)",
        # A file of results is open while a line is printed.
        "with atomic_write('never.json', 'w'):\n        print('line', flush=True)",
    ],
)
def test_a_full_standard_output_is_named(tmp_path, work, unbuffered):
    code = (
        "import sys\nfrom utils.cli.console import run_command\nfrom utils.cli.files import atomic_write\n"
        f"def work(argv):\n    {work}\n"
        "sys.exit(run_command(work, []))\n"
    )
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": unbuffered},
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert done.stderr == b"error: standard output: No space left on device\n"
    assert done.returncode == 1
    assert not any(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps the current folder")
@pytest.mark.parametrize("script", ["train.py --demo", "predict.py a.jpg", "data.py check --data voc"])
def test_a_current_folder_that_was_deleted_is_named(tmp_path, script):
    name, *arguments = script.split()
    command = f'rmdir "$PWD" && exec "{sys.executable}" "{ROOT / name}" {" ".join(arguments)}'
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stderr == "error: the current folder no longer exists; change to another one with cd\n"
    assert (done.returncode, done.stdout) == (2, "")
