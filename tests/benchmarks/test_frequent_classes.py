import json

from benchmarks.frequent_classes import main


def metrics(**counts):
    rows = {
        name: {"ground_truths": count, "voc_ap50_area": ap, "ap50": ap, "ap50_95": ap and ap / 2}
        for name, (count, ap) in counts.items()
    }
    return {"voc_ap50_area": 0.4, "per_class": rows}


def test_rare_classes_and_those_without_ground_truth_are_left_out(tmp_path, capsys):
    path, other = tmp_path / "metrics.json", tmp_path / "other.json"
    path.write_text(json.dumps(metrics(cat=(10, 0.6), dog=(30, 0.8), bird=(9, 0.1), cow=(0, None))))
    other.write_text(json.dumps(metrics(cat=(1, 0.0), dog=(2, 0.0), bird=(30, 0.0), cow=(30, 0.0))))
    assert main([str(path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"| {path} | 2 | 0.4000 | 0.7000 | 0.7000 | 0.3500 |"
    assert main([str(path), "--as-in", str(other)]) == 0  # bird and cow
    assert capsys.readouterr().out.splitlines()[-1] == f"| {path} | 2 | 0.4000 | 0.1000 | 0.1000 | 0.0500 |"
