"""Comparison of evaluations of the same goals or frames: is a difference significant?"""

from __future__ import annotations

import json

import numpy as np
import pytest

from jepa_ros.errors import InputError
from jepa_ros.evaluation.compare_runs import BLOCK_FRAMES, CaseMetric, compare_paired, compare_runs, read_run


def goals(path, reached, seed=0):
    """What `evaluate sim` leaves of goals that were reached or not."""
    rng = np.random.default_rng(seed)
    per_goal = []
    for k, done in enumerate(reached):
        ends = {"start_xy": rng.random(2).tolist(), "goal_xy": rng.random(2).tolist()}
        per_goal.append({"goal": k, **ends, "reached": bool(done), "final_distance": 0.01, "seconds": 2.0})
    path.mkdir()
    values = {"goal_set_hash": str(seed), "model": path.name, "per_goal": per_goal}
    (path / "summary.json").write_text(json.dumps(values))
    return path


def frames(path, errors, still=1.0, first=0):
    """What `evaluate bag` leaves of frames with these prediction errors."""
    path.mkdir()
    rows = [
        {"bag": "b", "stamp_ns": first + k, "recorded_ns": first + k, "epoch": 0, "error@1": e, "persistence@1": still}
        for k, e in enumerate(errors)
    ]
    (path / "frames.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (path / "summary.json").write_text(json.dumps({"model": "m", "bags": [], "files": {"frames": "frames.jsonl"}}))
    return path


def test_the_command_prints_an_80_column_table_and_the_paths(tmp_path, capsys):
    base, other = (goals(tmp_path / name, [k % 2 for k in range(30)]) for name in ("openarm_base", "openarm_reach_2"))
    compare_runs(runs=(base, other), seed=0, out=tmp_path / "out")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "openarm_reach_2 compared with openarm_base"
    assert any("final_distance_m" in line for line in lines) and str(tmp_path / "out" / "report.html") in lines[-1]
    assert all(len(line) <= 80 for line in lines if str(tmp_path) not in line)


def compared(tmp_path, *runs):
    assert compare_runs(runs=runs, seed=0, out=tmp_path / "out") == 0
    assert (tmp_path / "out" / "report.html").stat().st_size > 1000
    return json.loads((tmp_path / "out" / "summary.json").read_text())["against_base"]


def test_a_model_that_reaches_more_of_the_same_goals_is_significantly_better(tmp_path):
    base, better = goals(tmp_path / "base", [k % 2 for k in range(100)]), goals(tmp_path / "better", [1] * 100)
    found = compared(tmp_path, base, better)["better"]["reached"]
    assert found["difference"] == 0.5 and found["sure"] and found["ahead"] == 1.0 and found["cases"] == 100


def test_a_run_compared_with_itself_has_no_differences(tmp_path):
    base = goals(tmp_path / "base", [k % 2 for k in range(40)])
    same = goals(tmp_path / "same", [k % 2 for k in range(40)])
    assert all(d["low"] == d["high"] == 0.0 and not d["sure"] for d in compared(tmp_path, base, same)["same"].values())


def test_pairing_detects_small_differences_between_cases_of_different_difficulty():
    rng = np.random.default_rng(0)
    hard = rng.exponential(1.0, 4000)
    small = hard * 0.99 + rng.normal(0.0, 0.001, 4000)
    found = compare_paired(CaseMetric(hard), CaseMetric(small), np.zeros(4000), rng)
    assert found.high < 0.0 and found.ahead > 0.99
    apart = compare_paired(CaseMetric(hard), CaseMetric(rng.permutation(small)), np.zeros(4000), rng)
    assert not apart.sure


def test_similar_neighbours_widen_the_interval():
    """White noise and noise that is the same for a block: the second has a BLOCK_FRAMES-th of the cases."""
    rng = np.random.default_rng(1)
    white, slow = rng.normal(size=5000), np.repeat(rng.normal(size=5000 // BLOCK_FRAMES), BLOCK_FRAMES)
    zero, one_group = CaseMetric(np.zeros(5000)), np.zeros(5000)
    widths = [(d := compare_paired(zero, CaseMetric(v), one_group, rng)).high - d.low for v in (white, slow)]
    assert 0.6 * BLOCK_FRAMES**0.5 < widths[1] / widths[0] < 1.6 * BLOCK_FRAMES**0.5


def test_frames_are_paired_by_stamp_and_ratios_are_ratios_of_means(tmp_path):
    rng = np.random.default_rng(2)
    errors = rng.random(300)
    base = frames(tmp_path / "base", errors, still=2.0)
    found = compared(tmp_path, base, frames(tmp_path / "half", 0.5 * errors[100:], 2.0, first=100))["half"]
    ratio = found["prediction_ratio@1"]
    assert ratio["cases"] == 200 and ratio["sure"]
    assert ratio["first"] == pytest.approx(errors[100:].mean() / 2.0, rel=1e-4)
    assert ratio["second"] == pytest.approx(ratio["first"] / 2, rel=1e-4)


def test_frame_tables_in_parquet_and_json_lines_are_read_alike(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    run = frames(tmp_path / "run", [1.0, None, 3.0])
    expected = read_run(run)
    rows = [json.loads(line) for line in (run / "frames.jsonl").read_text().splitlines()]
    parquet.write_table(pyarrow.Table.from_pylist(rows), run / "frames.parquet")
    (run / "summary.json").write_text(json.dumps({"bags": [], "files": {"frames": "frames.parquet"}}))
    found = read_run(run)
    assert found.cases == expected.cases and found.metrics.keys() == expected.metrics.keys() == {"prediction_ratio@1"}
    np.testing.assert_array_equal(found.metrics["prediction_ratio@1"].values, [1.0, np.nan, 3.0])


def test_95_percent_intervals_contain_the_true_value_that_often():
    rng, held = np.random.default_rng(3), 0
    for _ in range(60):
        values = rng.normal(0.1, 1.0, 150)
        found = compare_paired(CaseMetric(np.zeros(150)), CaseMetric(values), np.arange(150), rng)
        held += found.low <= 0.1 <= found.high
    assert 52 <= held <= 60


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda p: [goals(p / "a", [1])], "give at least two runs"),
        (lambda p: [goals(p / "a", [1]), p / "none"], "run .*none: cannot read summary.json"),
        (
            lambda p: [goals(p / "a", [1]), frames(p / "b", [1.0])],
            "runs of `evaluate bag` and `evaluate sim` cannot be compared",
        ),
        (lambda p: [goals(p / "a", [1]), goals(p / "b", [1], seed=1)], "a and b have no common goal"),
        (
            lambda p: [frames(p / "a", [1.0]), frames(p / "b", [1.0], first=9)],
            "a and b have no common frame",
        ),
    ],
)
def test_runs_that_cannot_be_compared_are_refused_in_one_line(tmp_path, make, complaint):
    with pytest.raises(InputError, match=complaint) as refused:
        compare_runs(runs=make(tmp_path), seed=0, out=tmp_path / "out")
    assert "\n" not in str(refused.value) and not (tmp_path / "out").exists()


def test_a_foreign_summary_and_a_missing_table_are_refused(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "summary.json").write_text("{}")
    with pytest.raises(InputError, match="not of `evaluate bag` or `evaluate sim`"):
        read_run(tmp_path / "x")
    (frames(tmp_path / "y", [1.0]) / "frames.jsonl").unlink()
    with pytest.raises(InputError, match="the table of frames frames.jsonl is missing"):
        read_run(tmp_path / "y")
