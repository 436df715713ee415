import csv
import io

import pytest

from utils.compare.cost import Cost
from utils.compare.differences import Comparison, Difference, seeds_needed, smallest_visible
from utils.compare.report_files import as_csv, as_latex, as_markdown, describe_noise, draw_comparison
from utils.compare.results import Row, RunResult

ROWS = [
    Row(
        "none",
        Cost(5918006, 6.8144, 30.04, 1.0),
        [RunResult("none", 0, {}, 0.51, 0.27), RunResult("none", 1, {}, 0.49, 0.23)],
    ),
    Row(
        "own_1.py:B|C",
        None,
        [RunResult("own_1.py:B|C", 0, {}, 0.6, 0.3)],
        Comparison(Difference(0.09, None, 1), Difference(0.03, 0.01, 3), (-0.01, 0.19), 0.04),
    ),
]


def test_markdown_says_every_number_and_escapes_bars():
    lines = as_markdown(ROWS, ["on a machine"]).splitlines()
    assert lines[2] == (
        "| none | 5,918,006 | 6.814 | 30.0 | 1.00 | 0.5000 ± 0.0141 | 0.2500 ± 0.0283 | - | - | - | - | 0 1 |"
    )
    assert lines[3] == (
        r"| own_1.py:B\|C | - | - | - | - | 0.6000 | 0.3000 | +0.0900 | [-0.0100, +0.1900] | "
        "+0.0300 [+0.0052, +0.0548] | better | 0 |"
    )
    assert lines[5] == "- on a machine"
    assert len({line.replace(r"\|", "").count("|") for line in lines[:4]}) == 1


def test_latex_escapes_what_latex_would_read():
    text = as_latex(ROWS)
    assert r"own\_1.py:B|C & - & -" in text
    assert r"0.5000 $\pm$ 0.0141" in text
    assert text.count(r"\\") == 3


def test_csv_reads_back_in_full_precision():
    first, second = csv.DictReader(io.StringIO(as_csv(ROWS)))
    assert (float(first["gflops"]), first["map50_difference"], first["seeds"]) == (6.8144, "", "0 1")
    assert (second["parameters"], float(second["map50_images_high"]), second["map50_std"]) == ("", 0.19, "")
    assert float(second["map50_95_difference_low"]) == pytest.approx(0.0052, abs=1e-4)
    assert (second["map50_difference_low"], second["verdict"]) == ("", "better")


def test_below_three_seeds_nothing_is_said_of_the_noise():
    runs = [RunResult("se", seed, {}, 0.5, 0.3) for seed in (0, 1)]
    assert describe_noise([]) == []
    difference = Difference(0.0, 0.01, 2)
    assert describe_noise([Row("se", None, runs, Comparison(difference, difference))]) == []


def test_what_one_hundredth_takes_is_said_in_seeds_and_time():
    """Two blocks, deviations 0.006 and 0.008: 0.0071 together; hours are those of the runs so far."""
    rows = [
        Row("none", None, [RunResult("none", seed, {}, 0.5, 0.3, seconds=100.0) for seed in range(3)]),
        *(
            Row(
                label,
                None,
                [RunResult(label, seed, {}, 0.5, 0.3, seconds=100.0) for seed in range(3)],
                Comparison(Difference(0.0, 0.02, 3), Difference(0.0, deviation, 3), None, 1.0),
            )
            for label, deviation in (("se", 0.006), ("eca", 0.008))
        ),
    ]
    deviation = ((0.006**2 + 0.008**2) / 2) ** 0.5
    seeds = seeds_needed(deviation, 0.01)
    [line] = describe_noise(rows)
    assert f"scatter by {deviation:.4f}: 3 seeds show a true difference of " in line
    assert f"{smallest_visible(deviation, 3):.4f} four times in five" in line
    assert f"one of 0.01 takes {seeds} seeds ({3 * (seeds - 3)} more runs, about " in line


def test_the_picture_is_there_when_there_are_runs(tmp_path):
    draw_comparison([Row("none", None)], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
    draw_comparison(ROWS, tmp_path / "c.png")
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
