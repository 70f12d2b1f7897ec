"""Parts of `jepa_ros evaluate bag`: thresholds, score, table, latents, images, probes, plans, quality."""

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from helpers import sim_arm, small_models
from jepa_ros.bags.typestore import JointStateReader, typestore
from jepa_ros.errors import InputError
from jepa_ros.evaluation.bag.metrics import data_quality, planner_agreement
from jepa_ros.evaluation.bag.metrics import latents as latent_metrics
from jepa_ros.evaluation.bag.metrics.table import join_samples
from jepa_ros.evaluation.bag.output import summary
from jepa_ros.evaluation.bag.output.frame_table import write_frame_table
from jepa_ros.evaluation.bag.reading.images import BatchEncoder, CameraImage, ImageDecoder
from jepa_ros.evaluation.bag.reading.recording import EvaluationSpec, LatentStore, Recording
from jepa_ros.evaluation.bag.reading.situations import find_situations
from jepa_ros.planning.receding_horizon import PlanningSettings
from jepa_ros.world_model.heads import Probe

# -- thresholds and score ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, metric, sign, value",
    [
        ("prediction_ratio@3>0.5", "prediction_ratio@3", ">", 0.5),
        (" score <= -1e-3 ", "score", "<=", -1e-3),
        ("frames>=10.", "frames", ">=", 10.0),
    ],
)
def test_thresholds_are_parsed(text, metric, sign, value):
    assert summary.parse_threshold(text) == summary.Threshold(metric, sign, value)


@pytest.mark.parametrize("found, broken", [(0.4, False), (0.5, False), (0.6, True), (None, True)])
def test_a_threshold_is_exceeded_beyond_its_value_or_without_a_measurement(found, broken):
    assert bool(summary.parse_threshold("x > 0.5").check({"x": found})) == broken


@pytest.mark.parametrize(
    "content", ["fail_if: x > 1", "other: []", "- x > 1", "fail_if: [x]", "fail_if: [{x: 1}]", "["]
)
def test_invalid_threshold_files_are_refused(tmp_path, content):
    (tmp_path / "t.yaml").write_text(content)
    with pytest.raises(InputError, match="^(--)?threshold"):
        summary.gather_thresholds((), tmp_path / "t.yaml", ["x"])


def test_the_score_rises_with_each_part_and_needs_all_parts():
    assert summary.score(0.0, 0.0, 0.0)["score"] == 1.0
    assert summary.score(1.0, 0.01, 1.0)["score"] == pytest.approx(0.5)
    base = summary.score(0.04, 0.01, 0.2)["score"]
    assert base == pytest.approx((1 / 1.2 * 0.5 / 1.2) ** (1 / 3))
    for better in (summary.score(0.01, 0.01, 0.2), summary.score(0.04, 0.005, 0.2), summary.score(0.04, 0.01, 0.1)):
        assert better["score"] > base
    for part in range(3):
        values = [0.1, 0.1, 0.1]
        values[part] = None
        assert summary.score(*values)["score"] is None


# -- table -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parquet", [True, False])
def test_a_frame_table_appears_only_when_it_is_complete(tmp_path, parquet):
    columns = {"bag": ["a", "a"], "stamp_ns": np.array([1, 2**60]), "frozen": np.array([True, False])}
    columns["error@1"] = np.array([0.25, np.nan])

    def bags():
        for _ in range(2):
            assert not list(tmp_path.glob("frames.*"))
            yield columns

    path = write_frame_table(tmp_path, bags(), parquet)
    if parquet:
        from pyarrow.parquet import read_table

        rows = read_table(path).to_pylist()
    else:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
    first = {"bag": "a", "stamp_ns": 1, "frozen": True, "error@1": 0.25}
    assert rows == 2 * [first, {"bag": "a", "stamp_ns": 2**60, "frozen": False, "error@1": None}]
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("parquet", [True, False])
def test_an_interrupted_frame_table_leaves_no_file(tmp_path, parquet):
    def bags():
        yield {"bag": ["a"]}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_frame_table(tmp_path, bags(), parquet)
    assert list(tmp_path.iterdir()) == []


# -- latents -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept_bytes", [10**9, 200, 0])
def test_latents_are_read_from_memory_and_from_disk(kept_bytes):
    latents = np.random.default_rng(0).normal(size=(30, 2, 3)).astype(np.float32)
    store = LatentStore((2, 3), kept_bytes)
    for part in np.array_split(latents, 7):
        store.add(part)
    index = np.array([[0, 29], [7, 7]])
    np.testing.assert_array_equal(store.rows(index).numpy(), latents[index])
    store.add(latents)
    np.testing.assert_array_equal(store.rows(np.array(35)).numpy(), latents[5])
    assert len(store) == 60
    store.close()


def test_the_training_distance_is_1_on_the_training_data():
    config = small_models.config(size=16)
    model, _ = small_models.fresh(config)
    rng = np.random.default_rng(0)
    frames = (rng.integers(110, 140, (400, 1, 1, 1)) + rng.integers(0, 20, (400, 16, 16, 3))).astype(np.uint8)
    seen = []
    norm = next(m for m in model.projector.modules() if isinstance(m, torch.nn.BatchNorm1d))
    hook = norm.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    plain = model.encode(frames)
    hook.remove()
    norm.running_mean, norm.running_var = seen[0].mean(0), seen[0].var(0, unbiased=False)
    norm.eps = 1e-12  # the features of random weights hardly vary
    encoder = BatchEncoder(model)
    latents, distances = encoder.encode(list(frames))
    assert encoder.knows_training and distances.mean() == pytest.approx(1.0, abs=0.05)
    assert latents.shape == tuple(plain.shape)
    dark = encoder.encode(list(frames // 8))[1]
    assert dark.mean() > 5.0
    assert not BatchEncoder(small_models.Shifts()).knows_training


def sample(latents, distance=None):
    distance = np.full(len(latents), np.nan) if distance is None else np.asarray(distance)
    latents = torch.as_tensor(latents, dtype=torch.float32)
    return {"latents": latents, "distance": distance, "distances": distance, "states": np.zeros((len(latents), 0))}


def measure(samples):
    return latent_metrics.summarize_latents(samples, None)


def test_latent_health_measures_rank_dead_dimensions_and_drift():
    rng = np.random.default_rng(0)
    steady = rng.normal(size=(2000, 4))
    found = measure(sample(steady))
    assert found["effective_rank"] == pytest.approx(4.0, abs=0.1) and found["dead_dimensions"] == 0.0
    assert found["drift_max"] < 0.05 and found["collapse"] is None
    dead = steady * [1, 1, 1, 1e-4]
    assert measure(sample(dead))["dead_dimensions"] == 0.25
    drifting = steady + np.linspace(0, 5, 2000)[:, None]
    assert measure(sample(drifting))["drift"] > 1.0
    assert measure(sample(np.zeros((50, 4))))["collapse"]
    joined = join_samples([sample(steady, np.ones(2000)), sample(steady, np.full(2000, 3.0))])
    assert measure(joined)["training_distance_mean"] == pytest.approx(2.0)


# -- images ------------------------------------------------------------------------------------------------------------


def message(value):
    data = cv2.imencode(".png", np.full((40, 60, 3), value, np.uint8))[1].ravel()
    return SimpleNamespace(format="png", data=data if value != 13 else data[:20])


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_images_are_decoded_in_order_by_any_number_of_workers(workers):
    found = []
    with ImageDecoder(workers, 16) as decoder:
        for k in range(120):
            image = CameraImage(0, 0, k, k, "camera", None)
            found += decoder.add(image, message(k), copy=k == 5)
            assert k - len(found) < 80, "no more than a few wait"
        found += decoder.finish()
    assert [p.stamp for p in found] == list(range(120))
    assert all((p.frame == p.stamp).all() for p in found if p.stamp != 13)
    assert found[13].frame is None and found[13].problem.cause == "truncated"
    assert [p.stamp for p in found if p.jpeg] == [5]
    assert cv2.imdecode(np.frombuffer(found[5].jpeg, np.uint8), cv2.IMREAD_COLOR).shape == (40, 60, 3)


# -- probes ------------------------------------------------------------------------------------------------------------


def test_the_tool_probe_of_the_model_is_compared_with_kinematics():
    rng = np.random.default_rng(0)
    latents, weights = rng.normal(size=(300, 2)).astype(np.float32), rng.normal(size=(3, 3)).astype(np.float32)
    truth = latents @ weights[:2] + weights[2]
    made = Recording(Path("bag"), LatentStore((2,)))
    made.latents.add(latents)
    probe = Probe("tool", torch.from_numpy(weights), 0.004, (2,))
    spec = EvaluationSpec(SimpleNamespace(probes={"tool": probe}), None)
    off = truth + [0.03, 0.04, 0.0]
    off[::2] = np.nan
    assert latent_metrics.read_probe(spec, made, "joints", np.zeros((300, 2))) == {}
    figures = latent_metrics.summarize_probes(latent_metrics.read_probe(spec, made, "tool", off), spec)
    assert figures["tool"]["frames"] == 150
    assert figures["tool"]["error_p50_m"] == pytest.approx(0.05, rel=1e-3)
    assert figures["tool"]["on_test_data_m"] == 0.004 and figures["joints"]["rms_rad"] is None
    spread = np.sqrt(np.square(off[1::2] - off[1::2].mean(0)).sum(1).mean())
    assert figures["tool"]["spread_m"] == pytest.approx(spread, rel=1e-4)


def test_the_error_of_a_joint_probe_is_in_rad():
    made = Recording(Path("bag"), LatentStore((2,)))
    made.latents.add(np.ones((10, 2), np.float32))
    weights = torch.tensor([[0.5, 0.0], [0.5, 0.0], [0.0, 0.2]])
    spec = EvaluationSpec(SimpleNamespace(probes={"joints": Probe("joints", weights, 0.1, (2,))}), None)
    samples = latent_metrics.read_probe(spec, made, "joints", np.array([[1.3, 0.2 + 0.4]] * 10))
    figures = latent_metrics.summarize_probes(samples, spec)
    assert figures["joints"]["rms_rad"] == pytest.approx(math.sqrt((0.3**2 + 0.4**2) / 2), rel=1e-4)
    assert figures["tool"]["rms_m"] is None


def test_the_error_of_a_joint_probe_is_the_short_way_round_for_continuous_joints():
    made = Recording(Path("bag"), LatentStore((2,)))
    made.latents.add(np.ones((10, 2), np.float32))
    weights = torch.tensor([[1.5, 1.5], [1.5, 1.5], [0.1, 0.1]])
    spec = EvaluationSpec(SimpleNamespace(probes={"joints": Probe("joints", weights, 0.1, (2,))}), None)
    truth = np.array([[3.1 - 2 * math.pi, 3.1 - 2 * math.pi]] * 10)
    samples = latent_metrics.read_probe(spec, made, "joints", truth, np.array([True, True]))
    np.testing.assert_allclose(samples["joints_error"], 0.0, atol=1e-6)
    samples = latent_metrics.read_probe(spec, made, "joints", truth, np.array([True, False]))
    np.testing.assert_allclose(samples["joints_error"], math.sqrt(2) * math.pi, rtol=1e-6)


# -- plans -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def driven():
    """The arm driven along x, in the world that `small_models.Shifts` knows: latents are places of the tool."""
    robot, space = sim_arm.robot(), sim_arm.space()
    checkpoint = small_models.knowing(tuple(robot.joints))
    made = Recording(Path("bag"), LatentStore((2,)), sim_arm.scene().urdf)
    speed = 0.7 * np.r_[np.linspace(0, 0.5, 8), np.full(12, 0.5), np.linspace(0.5, -0.5, 20), np.full(10, -0.5)]
    x = np.append(0.14, 0.14 + np.cumsum(speed) * 0.2 * 0.1)
    q = [space.inverse_kinematics([value, -0.3]) for value in x]
    made.latents.add(np.stack([small_models.latent_of(space.tool_coordinates(joints)).numpy() for joints in q[:50]]))
    qd = np.gradient(np.array(q), 0.1, axis=0)
    for k in range(50):
        stamp = 1_700_000_000 * 10**9 + k * 10**8
        made.frame_stamps.append(stamp)
        made.frame_epochs.append(0)
        made.states.add(stamp, 0, np.concatenate([q[k], qd[k]]))
        made.actions.add(stamp, 0, np.array([speed[k], 0.0]))
    return checkpoint, made


@pytest.fixture(scope="module")
def planned(driven):
    checkpoint, made = driven
    settings = PlanningSettings(budget=math.inf, horizon=4)
    situations = find_situations(made, EvaluationSpec(checkpoint, sim_arm.robot(), settings, 4, plan_states=6))
    return planner_agreement.compute_agreement(made, situations)["agreements"], situations


def test_plans_of_a_perfect_model_agree_with_the_recording(driven, planned):
    found, _ = planned
    assert len(found) == 6 and all(a.plan is not None and not a.forbidden for a in found), found
    figures = planner_agreement.summarize_agreement({"agreements": found}, None)
    nearby = math.sqrt(2 * driven[0].config.distance.tolerance) * small_models.SCALE  # where it counts as there
    assert figures["gap_p50_m"] < nearby and figures["gap_ratio"] < 0.3, figures
    assert figures["limit_violations"] == 0 and figures["cheaper_than_random"] == 1.0
    assert all(0.0 <= a.cost <= a.random_cost for a in found)
    moving = [a for a in found if a.moved > 0.03]
    assert moving and min(a.direction for a in moving) > 0.95


def test_a_perfect_model_predicts_that_recorded_actions_reach_the_goal(planned):
    """Shifts predicts them exactly: what is left is the price of the way there."""
    found, _ = planned
    assert all(a.recorded_cost >= 0.0 for a in found) and any(a.recorded_cost > a.cost for a in found)


def test_a_plan_does_not_depend_on_earlier_plans(driven, planned):
    found, situations = planned
    row = int(planner_agreement.pick_states(situations)[3])
    again = planner_agreement.RecordingPlanner(situations).plan_at(row)
    assert again.cost == found[3].cost and again.actions_rms == found[3].actions_rms
    np.testing.assert_array_equal(again.plan.trajectory.positions, found[3].plan.trajectory.positions)


def test_plan_states_are_evenly_spread_over_states_with_a_known_horizon(planned):
    _, situations = planned

    def pick(count):
        return planner_agreement.pick_states(replace(situations, spec=replace(situations.spec, plan_states=count)))

    rows = pick(6)
    assert len(rows) == 6 and situations.known[rows].all() and np.ptp(np.diff(rows)) <= 1
    assert len(pick(10_000)) == situations.known.all(axis=1).sum()
    assert len(pick(0)) == 0


# -- quality -----------------------------------------------------------------------------------------------------------


def test_skew_is_the_time_to_the_nearest_joint_state():
    made = Recording(Path("bag"), LatentStore((2,)))
    made.frame_stamps = [10**9, 2 * 10**9]
    for stamp in (10**9 - 4_000_000, 10**9 + 7_000_000, 2 * 10**9 + 1_000_000):
        made.states.add(stamp, 0, np.zeros(1))
    found = data_quality.measure_skew(made)
    assert found["max"] == pytest.approx(4.0) and found["p50"] == pytest.approx(2.5)


# -- joint states ------------------------------------------------------------------------------------------------------


def serialised(names, count, frame_id="base", seed=0):
    types, rng = typestore(), np.random.default_rng(seed)
    kinds = types.types
    stamp = kinds["builtin_interfaces/msg/Time"](sec=12, nanosec=34)
    message = kinds["sensor_msgs/msg/JointState"](
        header=kinds["std_msgs/msg/Header"](stamp=stamp, frame_id=frame_id),
        name=list(names),
        position=rng.normal(size=count[0]),
        velocity=rng.normal(size=count[1]),
        effort=rng.normal(size=count[2]),
    )
    return message, bytes(types.serialize_cdr(message, "sensor_msgs/msg/JointState"))


@pytest.mark.parametrize("frame_id", ["", "b", "base", "ünter"])
def test_the_fast_joint_state_reader_equals_the_general_reader(frame_id):
    reader = JointStateReader()
    for seed, names in enumerate((("a", "bcd"), ("a", "bcd"), (), ("long_joint_name", "é"), ("a", "bcd"), ("a",))):
        for count in ((2, 2, 2), (0, 3, 0), (1, 0, 1), (0, 0, 0)):
            message, data = serialised(names, count, frame_id, seed)
            read = reader.read(data)
            assert read.name == message.name and read.header.frame_id == frame_id
            assert (read.header.stamp.sec, read.header.stamp.nanosec) == (12, 34)
            for field in ("position", "velocity", "effort"):
                np.testing.assert_array_equal(getattr(read, field), getattr(message, field))


def test_truncated_joint_states_are_refused():
    _, data = serialised(("a", "b"), (2, 2, 2))
    for size in range(len(data)):
        with pytest.raises(ValueError):
            JointStateReader().read(data[:size])
    with pytest.raises(ValueError):
        JointStateReader().read(b"\x00\x00" + data[2:])
