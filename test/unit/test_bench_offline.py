"""The benchmark of the offline score: its statistics and its steps."""

from __future__ import annotations

import shlex

import numpy as np
import pytest

from jepa_ros.bench import offline_score
from jepa_ros.bench.offline_score import write_report
from jepa_ros.errors import InputError
from jepa_ros.reporting.summary import wilson_interval


def models(scores, rates):
    """Results of a study."""
    cases = zip(offline_score.MODELS, scores, rates, strict=True)
    return [
        {"name": m.name, "data": m.data, "score": s, "rate": r, "reached": round(200 * r), "metrics": {}}
        | {"interval_95": wilson_interval(round(200 * r), 200)}
        for m, s, r in cases
    ]


def test_equal_order_gives_correlation_1_and_a_small_p_value():
    rates = np.linspace(0.1, 0.9, len(offline_score.MODELS))
    found = offline_score.correlate(models(rates**3, rates))
    assert found["rank_correlation"] == pytest.approx(1.0) and found["p_value"] < 0.01
    assert found["interval_95"][0] > 0.99 and found["near_the_best"] == 3


def test_random_order_gives_an_interval_around_0():
    rng = np.random.default_rng(0)
    found = offline_score.correlate(models(rng.permutation(12) / 12, np.linspace(0.1, 0.9, 12)))
    assert found["interval_95"][0] < 0.0 < found["interval_95"][1] and found["p_value"] > 0.05


def test_a_model_without_a_score_ranks_last():
    rates = np.linspace(0.1, 0.9, 12)
    assert offline_score.correlate(models([None, *rates[1:]], rates))["rank_correlation"] == pytest.approx(1.0)


def test_twelve_models_or_more_have_a_report(tmp_path):
    assert len(offline_score.MODELS) >= 12 and len({m.name for m in offline_score.MODELS}) == len(offline_score.MODELS)
    found = models(np.linspace(0, 1, 12), np.linspace(0, 1, 12))
    write_report(tmp_path, offline_score.correlate(found) | {"models": found, "goals": 200})
    assert (tmp_path / "report.html").stat().st_size > 1000 and (tmp_path / "offline.png").stat().st_size > 1000


def test_a_directory_with_spaces_is_one_argument(tmp_path, monkeypatch):
    commands, out = [], tmp_path / "my runs"
    monkeypatch.setattr(offline_score.Steps, "run", lambda self, count, steps: commands.extend(s[2] for s in steps))
    with pytest.raises(FileNotFoundError):  # no step was run
        offline_score.benchmark_offline_score(out=out, goals=1, seed=0)
    words = [shlex.split(command) for command in commands if command.startswith("evaluate bag")]
    assert words == [["evaluate", "bag", str(out / "data" / "judged")]] * len(offline_score.MODELS)


@pytest.mark.slow
def test_finished_steps_are_skipped_and_failures_are_reported(tmp_path):
    heard = []
    steps = offline_score.Steps(tmp_path, lambda done, doing: heard.append((done, doing)))
    collect = (
        "data",
        "metadata.yaml",
        "collect sim",
        {"episodes": 1, "seed": 7, "width": 32, "height": 32, "workers": 1},
    )
    steps.run(1, [collect])
    made = (tmp_path / "data" / "metadata.yaml").stat().st_mtime_ns
    steps.run(1, [collect])
    assert (tmp_path / "data" / "metadata.yaml").stat().st_mtime_ns == made and heard[-1] == (2, "data")
    with pytest.raises(InputError, match="tried/x: ended with code 2: .*model 'nothing'"):
        steps.run(1, [("tried/x", "summary.json", "evaluate sim", {"model": "nothing"})])
