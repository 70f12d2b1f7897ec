"""`jepa_ros evaluate bag`: figures, files and exit codes of good bags, the same on every run."""

import json

import numpy as np
import pytest
from rosbags.rosbag2 import Reader

from helpers import evaluated_bag as bags
from helpers.evaluated_bag import bag, model  # noqa: F401  (fixtures)
from jepa_ros.bags.typestore import typestore
from jepa_ros.reporting.summary import write_summary


@pytest.fixture(scope="module")
def evaluated(bag, model, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "d"
    return *bags.evaluate(bag, model, out), out


def test_a_good_bag_gets_every_metric(evaluated):
    summary, lines, out = evaluated
    assert lines == [] and summary["problems"] == []
    assert summary["metrics"]["frames"] == bags.FRAMES == summary["bags"][0]["quality"]["frames"]
    together = summary["together"]
    assert [h["steps"] for h in together["prediction"]["horizons"]] == [1, 2]
    for key in ("error", "persistence", "shuffled", "prediction_ratio", "shuffled_ratio", "joints_rms_rad"):
        assert together["prediction"]["horizons"][0][key] > 0, key
    assert 1.0 < together["latents"]["effective_rank"] <= 4.0
    assert together["latents"]["training_distance_mean"] is not None
    assert together["probes"]["tool"]["frames"] == bags.FRAMES
    assert together["surprise"]["readings"] > 20
    assert together["planner"]["states"] == 2 == len(summary["bags"][0]["planner"]["at"])
    assert 0.0 < summary["score"] < 1.0
    assert summary["timing"]["times_real_time"] > 0 and summary["timing"]["encode_ms"]["p50"] > 0
    assert summary["bags"][0]["quality"]["missing"] == []
    assert (out / "report.html").stat().st_size > 10_000
    assert sorted(p.name for p in out.iterdir()) == ["frames.parquet", "report.html", "result.mcap", "summary.json"]


def test_every_frame_has_a_row(evaluated):
    _, _, out = evaluated
    rows = bags.rows(out)
    assert len(rows) == bags.FRAMES and {row["bag"] for row in rows} == {"play"}
    # an episode's last frames have nothing to be predicted
    assert sum(row["error@1"] is not None for row in rows) == bags.FRAMES - 6 * 4
    assert sum(row["error@2"] is not None for row in rows) == bags.FRAMES - 6 * 8
    assert all(row["probe_tool_m"] > 0 for row in rows)


def test_the_prediction_ratios_agree_with_the_frame_table(evaluated):
    summary, _, out = evaluated
    rows = bags.rows(out)
    for k in (1, 2):
        error, still = (bags.finite([row[f"{name}@{k}"] for row in rows]).mean() for name in ("error", "persistence"))
        assert summary["metrics"][f"prediction_ratio@{k}"] == pytest.approx(error / still, rel=1e-5)


def test_the_result_bag_has_inputs_latents_surprise_and_plans(evaluated, bag):
    summary, _, out = evaluated
    kinds = {"/latent": "LatentState", "/surprise": "Surprise", "/plan": "Plan"}
    frames = bags.stamps(bag, bags.IMAGES, "sensor_msgs/msg/CompressedImage")
    assert bags.stamps(out / "result.mcap", "/latent", "jepa_msgs/msg/LatentState") == frames
    with Reader(out / "result.mcap") as reader, Reader(bag) as inputs:
        counts = {c.topic: c.msgcount for c in reader.connections}
        assert {c.topic: c.msgcount for c in inputs.connections}.items() <= counts.items()
        assert counts["/surprise"] == summary["together"]["surprise"]["readings"]
        assert counts["/plan"] == summary["together"]["planner"]["planned"]
        for connection, recorded, data in reader.messages([c for c in reader.connections if c.topic in kinds]):
            message = typestore().deserialize_cdr(data, f"jepa_msgs/msg/{kinds[connection.topic]}")
            if connection.topic == "/latent":
                assert message.model_id == summary["model_id"] and list(message.shape) == [4]
                assert message.header.frame_id == "tablecam_optical_frame" and recorded in frames
            if connection.topic == "/plan":
                assert np.isfinite(message.action_blocks).all() and len(message.trajectory.points) > 1


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_runs_are_equal_bit_for_bit_for_any_number_of_workers(bag, model, evaluated, tmp_path, workers):
    first, _, out = evaluated
    again, _ = bags.evaluate(bag, model, out.parent / f"again{workers}", "--workers", workers)
    assert bags.same(again) == bags.same(first)
    for name in ("frames.parquet", "result.mcap"):
        assert (out.parent / f"again{workers}" / name).read_bytes() == (out / name).read_bytes(), name


def test_another_seed_changes_only_the_shuffled_actions(bag, model, evaluated, tmp_path):
    other, _ = bags.evaluate(bag, model, tmp_path / "o", "--seed", 5)
    first = evaluated[0]["metrics"]
    assert other["metrics"]["prediction_ratio@1"] == first["prediction_ratio@1"]
    assert other["metrics"]["shuffled_ratio@1"] != first["shuffled_ratio@1"]


def test_several_bags_are_evaluated_each_and_together(bag, model, tmp_path):
    other = bags.write_bag(tmp_path / "other", seed=3)
    out = tmp_path / "o"
    summary, _ = bags.evaluate([bag, other], model, out)
    counts = [b["prediction"]["horizons"][0] for b in summary["bags"]]
    total = summary["together"]["prediction"]["horizons"][0]
    assert [b["name"] for b in summary["bags"]] == ["play", "other"]
    assert total["frames"] == sum(c["frames"] for c in counts)
    mean = sum(c["error"] * c["frames"] for c in counts) / total["frames"]
    assert total["error"] == pytest.approx(mean, rel=1e-5)
    assert counts[0]["error"] != counts[1]["error"] and summary["metrics"]["frames"] == 2 * bags.FRAMES
    assert {p.name for p in out.glob("*.mcap")} == {"result_0_play.mcap", "result_1_other.mcap"}
    assert {row["bag"] for row in bags.rows(out)} == {"play", "other"}


def test_an_exceeded_threshold_is_a_line_and_exit_code_1(bag, model, tmp_path):
    limits = ("--fail-if", "prediction_ratio@1>1e-9", "--fail-if", "frames<1", "--fail-if", "times_real_time > 0")
    summary, lines = bags.evaluate(bag, model, tmp_path / "o", *limits, code=1)
    assert len(lines) == 2 and lines[0].startswith("threshold prediction_ratio@1 > 1e-09: prediction_ratio@1 is ")
    assert "times_real_time" in lines[1]
    assert [t["broken"] for t in summary["thresholds"]] == [True, False]


def test_thresholds_can_be_read_from_a_file(bag, model, tmp_path):
    (tmp_path / "limits.yaml").write_text("fail_if:\n  - effective_rank < 100\n  - dead_dimensions > 1\n")
    _, lines = bags.evaluate(bag, model, tmp_path / "o", "--thresholds", tmp_path / "limits.yaml", code=1)
    assert len(lines) == 1 and lines[0].startswith("threshold effective_rank < 100: effective_rank is")


def test_a_metric_that_was_not_measured_exceeds_its_threshold(bag, model, tmp_path):
    limits = ("--fail-if", "probe_joints_rms_rad>100")
    _, lines = bags.evaluate(bag, model, tmp_path / "o", *limits, code=1)
    assert lines == ["threshold probe_joints_rms_rad > 100: probe_joints_rms_rad could not be measured"]


@pytest.mark.parametrize("text", ["prediction_ratio@9>1", "predicton_ratio@1>1", "prediction_ratio@1=1", "x", ">1"])
def test_an_invalid_threshold_is_refused_before_anything_is_read(bag, model, tmp_path, text):
    summary, lines = bags.evaluate(bag, model, tmp_path / "o", "--fail-if", text, code=2)
    assert summary is None and len(lines) == 1 and lines[0].startswith(("threshold ", "--fail-if "))
    assert "no metric has this name" in lines[0] or "give METRIC" in lines[0]
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("option", ["--camera", "--joint-states", "--executed"])
def test_a_topic_that_no_bag_has_is_refused_before_anything_is_written(bag, model, tmp_path, option):
    summary, lines = bags.evaluate(bag, model, tmp_path / "o", option, "/unknown/topic", code=2)
    assert summary is None and len(lines) == 1 and not (tmp_path / "o").exists()
    assert lines[0].startswith(f"{option} /unknown/topic: no bag has this topic") and "joint_states" in lines[0]


def test_no_result_writes_no_result_bag(bag, model, tmp_path):
    summary, _ = bags.evaluate(bag, model, tmp_path / "o", "--no-result")
    assert not list((tmp_path / "o").glob("*.mcap")) and summary["files"]["results"] == []


def test_an_interrupted_run_leaves_nothing_under_its_final_name(bag, model, tmp_path, monkeypatch):
    from jepa_ros.evaluation.bag import evaluate

    def interrupted(*arguments):
        assert list((tmp_path / "o").iterdir()), "something is being written by now"
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluate, "compute_metrics", interrupted)
    bags.evaluate(bag, model, tmp_path / "o", code=130)
    assert list((tmp_path / "o").iterdir()) == []


def test_partial_files_of_a_killed_run_are_removed(bag, model, tmp_path):
    left = tmp_path / "o" / ".result.mcap.123" / "result"
    left.mkdir(parents=True)
    (left / "result.mcap").write_bytes(b"half")
    (tmp_path / "o" / ".frames.parquet.123").write_bytes(b"half")
    bags.evaluate(bag, model, tmp_path / "o", *bags.QUICK)
    assert not [p.name for p in (tmp_path / "o").iterdir() if p.name.startswith(".")]


def test_an_interrupted_run_keeps_the_results_of_the_run_before(bag, model, tmp_path, monkeypatch):
    from jepa_ros.evaluation.bag import evaluate

    out = tmp_path / "o"
    bags.evaluate(bag, model, out)
    before = bags.contents(out)

    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluate, "compute_metrics", interrupted)
    bags.evaluate(bag, model, out, code=130)
    assert bags.contents(out) == before


def test_the_shipped_thresholds_name_existing_metrics(bag, model, tmp_path):
    from jepa_ros.evaluation.bag.output.summary import gather_thresholds, metric_names
    from jepa_ros.resources import config_path

    found = gather_thresholds((), config_path("evaluation", "thresholds.yaml"), metric_names(5))
    assert len(found) >= 5


def test_thresholds_may_name_every_metric(evaluated):
    from jepa_ros.evaluation.bag.output.summary import TIMING_PATHS, metric_names

    assert set(evaluated[0]["metrics"]) == set(metric_names(2)) - set(TIMING_PATHS)
    assert json.dumps(evaluated[0])  # nothing in it is no number


def test_a_model_for_another_robot_is_refused(bag, tmp_path):
    import torch

    from helpers import small_models
    from jepa_ros.world_model.checkpoint import build_model, save_checkpoint

    config = small_models.config(("a", "b"))
    torch.manual_seed(0)
    save_checkpoint(tmp_path / "m", config, *build_model(config, tmp_path / "m"))
    summary, lines = bags.evaluate(bag, tmp_path / "m", tmp_path / "o", code=2)
    assert summary is None and len(lines) == 1 and "expected the joints ['a', 'b']" in lines[0]


def test_evaluate_bag_returns_the_summary_of_the_command_and_writes_nothing(
    bag, model, evaluated, tmp_path, monkeypatch
):
    from jepa_ros.evaluation.bag.evaluate import evaluate_bag

    monkeypatch.chdir(tmp_path)
    summary = evaluate_bag(bag, model, horizon=2, plan_states=2)
    written = write_summary(tmp_path / "out" / "summary.json", summary)
    found, expected = json.loads(written.read_text()), evaluated[0]
    assert found["metrics"] == expected["metrics"] and found["together"] == expected["together"]
    assert found["score"] == expected["score"] and [p.name for p in tmp_path.iterdir()] == ["out"]


def test_the_command_prints_its_result_and_the_paths_in_80_columns(bag, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = bags.run(bag, "--model", model, "--out", "o", *bags.QUICK, "--horizon", 2, "--fail-if", "frames<1")
    lines = done.stdout.splitlines()
    score = json.loads((tmp_path / "o" / "summary.json").read_text())["score"]
    assert lines[0].endswith(f"on 1 recording, {bags.FRAMES} frames")
    assert any(line.split()[0] == "score" for line in lines) and score is None
    assert "  thresholds" in done.stdout and "0 of 1 exceeded" in done.stdout
    assert [line.split()[-1] for line in lines[-4:]] == [
        f"o/{name}" for name in ("summary.json", "report.html", "frames.parquet", "result.mcap")
    ]
    assert max(map(len, lines)) <= 80


def test_an_unwritable_output_is_refused_before_reading(bag, model, tmp_path):
    (tmp_path / "file").write_text("")
    _, lines = bags.evaluate(bag, model, tmp_path / "file" / "o", code=2)
    assert len(lines) == 1 and "cannot be written to" in lines[0]


def test_a_failing_report_loses_no_results(bag, model, tmp_path, monkeypatch):
    from jepa_ros.evaluation.bag import evaluate

    def fail(*_):
        raise RuntimeError("no report")

    monkeypatch.setattr(evaluate, "write_report", fail)
    done = bags.run(bag, "--model", model, "--out", tmp_path / "o", *bags.QUICK)
    assert done.exit_code == 2 and isinstance(done.exception, SystemExit)
    last = done.stderr.splitlines()[-1]
    assert "no report" in last and f"the results are in {tmp_path / 'o' / 'summary.json'}" in last
    assert json.loads((tmp_path / "o" / "summary.json").read_text())["metrics"]["frames"] == bags.FRAMES
