"""`jepa_ros evaluate sim`: its result, the baselines, and results that survive a failing report."""

import json

import pytest

from jepa_ros.errors import InputError
from jepa_ros.evaluation import sim
from jepa_ros.resources import list_models

pytestmark = pytest.mark.skipif("openarm_reach" not in list_models(), reason="the shipped model is not there")


def test_the_result_names_the_baselines_and_survives_a_failing_report(tmp_path, monkeypatch, capsys):
    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr(sim.Report, "write", fail)
    with pytest.raises(InputError, match="no space left.*the results are in .*summary.json"):
        options = {"goals": 1, "seed": 0, "timeout": 0.5, "workers": 1}
        sim.run_sim_evaluation(model="openarm_reach", task="reach", out=tmp_path / "out", **options)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["goals"] == 1 and summary["random"]["reached"] == 0 and "oracle" in summary
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[1] for line in lines[3:6]] == ["model", "random actions", "oracle"]
    assert lines[-1] == f"wrote {tmp_path / 'out' / 'summary.json'}"
