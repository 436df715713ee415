from __future__ import annotations

import pytest

from benchmarks.metrics_speed import main
from utils.metrics.coco_ap import ENGINES


def test_the_table_has_a_row_for_each_part(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--images", "3", "--detections", "10", "--classes", "2", "--engines", *ENGINES])
    rows = [
        line.split("|")[1].strip() for line in capsys.readouterr().out.splitlines() if line.startswith("|")
    ]
    assert [f"COCO AP by {engine}" for engine in ENGINES] == [row for row in rows if row.startswith("COCO")]
    assert rows[-1] == "all but COCO AP"
