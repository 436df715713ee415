import csv
import io

from utils.compare.cost import Cost
from utils.compare.report_files import as_csv, as_latex, as_markdown, draw_comparison
from utils.compare.results import Difference, Row, RunResult

ROWS = [
    Row(
        "none",
        Cost(5918006, 6.8144, 30.04, 1.0),
        [RunResult("none", 0, {}, 0.51, 0.27), RunResult("none", 1, {}, 0.49, 0.23)],
    ),
    Row("own_1.py:B|C", None, [RunResult("own_1.py:B|C", 0, {}, 0.6, 0.3)], Difference(0.09, (-0.01, 0.19))),
]


def test_markdown_says_every_number_and_escapes_bars():
    lines = as_markdown(ROWS, ["on a machine"]).splitlines()
    assert lines[2] == (
        "| none | 5,918,006 | 6.814 | 30.0 | 1.00 | 0.5000 ± 0.0141 | 0.2500 ± 0.0283 | - | - | 0 1 |"
    )
    assert lines[3] == (
        r"| own_1.py:B\|C | - | - | - | - | 0.6000 | 0.3000 | +0.0900 [-0.0100, +0.1900] | within noise | 0 |"
    )
    assert lines[-1] == "- on a machine"
    assert len({line.replace(r"\|", "").count("|") for line in lines[:4]}) == 1


def test_latex_escapes_what_latex_would_read():
    text = as_latex(ROWS)
    assert r"own\_1.py:B|C & - & -" in text
    assert r"[95 \%]" in text
    assert r"0.5000 $\pm$ 0.0141" in text
    assert text.count(r"\\") == 3


def test_csv_reads_back_in_full_precision():
    first, second = csv.DictReader(io.StringIO(as_csv(ROWS)))
    assert (float(first["gflops"]), first["difference_mean"], first["seeds"]) == (6.8144, "", "0 1")
    assert (second["parameters"], float(second["difference_high"]), second["map50_std"]) == ("", 0.19, "")


def test_the_picture_is_there_when_there_are_runs(tmp_path):
    draw_comparison([Row("none", None)], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
    draw_comparison(ROWS, tmp_path / "c.png")
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
