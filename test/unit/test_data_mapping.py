"""Bags of other people's robots: every source of actions, every way to record, and the mapping that inspect drafts."""

import json
import math

import numpy as np
import pytest
import yaml
from rosbags.rosbag2 import StoragePlugin
from typer.testing import CliRunner

from helpers import foreign_bags
from helpers.foreign_datasets import MAPPING, build, greys
from jepa_ros import cli
from jepa_ros.datasets.build import build_dataset
from jepa_ros.datasets.mapping import read_mapping
from jepa_ros.datasets.store import Dataset
from jepa_ros.errors import InputError
from jepa_ros.resources import config_path

TRAJECTORY = {"source": "trajectory", "topic": "arm/joint_trajectory"}


def inspect(*arguments):
    return CliRunner().invoke(cli.app, ["data", "inspect", *map(str, arguments)])


# --- actions ---------------------------------------------------------------------------------------------------------


def test_actions_from_state_differences_are_mean_velocities(tmp_path):
    data, _ = build(tmp_path, foreign_bags.write(tmp_path / "bag"), {"actions": {"source": "states", "scale": 0.5}})
    (entry,) = data.index.episodes
    np.testing.assert_allclose(
        data.rows(entry, "actions"), np.tile(foreign_bags.RATES[:2] / 0.5, (entry.frames, 1)), atol=1e-5
    )
    assert data.layout.action_names == ("shoulder.vel", "elbow.vel") and data.layout.action_space == "joints"


@pytest.mark.parametrize("rate", [5.0, 10.0, 20.0])
def test_actions_from_trajectories_are_as_executed_by_the_controller(tmp_path, rate):
    """Each leads in half a second to where the joints will be then; after 0.1 s the next one goes on from there."""
    data, _ = build(tmp_path, foreign_bags.write(tmp_path / "bag"), {"actions": TRAJECTORY}, rate=rate)
    (entry,) = data.index.episodes
    q, times = [foreign_bags.position(0.5)[:2]], np.arange(0, 4.05, 0.1)
    for t in times[:-1]:
        q.append(q[-1] + 0.2 * (foreign_bags.position(t + 0.5)[:2] - q[-1]))
    wanted = np.array(q)
    at = np.arange(entry.frames) / rate
    moved = np.diff([[np.interp(t, times, column) for column in wanted.T] for t in at], axis=0) * rate
    np.testing.assert_allclose(data.rows(entry, "actions")[:-1], moved, atol=1e-5)


@pytest.mark.parametrize("kind", ["twist", "stamped"])
def test_a_twist_is_held_until_the_next_command(tmp_path, kind):
    topic = foreign_bags.KINDS[kind][0]
    fields = {"source": "velocity", "topic": topic, "fields": ["linear.x", "angular.z"], "scale": 0.2}
    data, _ = build(tmp_path, foreign_bags.write(tmp_path / "bag", commands=kind), {"actions": fields})
    (entry,) = data.index.episodes
    actions = data.rows(entry, "actions")[:-1]
    np.testing.assert_allclose(actions[:, 0], 0.1 * 0.1 * np.arange(entry.frames - 1) / 0.2, atol=1e-5)
    np.testing.assert_allclose(actions[:, 1], -1.0, atol=1e-5)
    assert data.layout.action_names == ("linear.x", "angular.z") and data.layout.action_scale == 0.2


def test_a_velocity_command_ends_after_its_hold_time(tmp_path):
    bag = foreign_bags.write(
        tmp_path / "bag", commands="array", skip=lambda topic, t: topic.startswith("/velocity") and 0.95 < t < 2.95
    )
    fields = {"source": "velocity", "topic": "velocity_controller/commands", "fields": ["0", "1"], "hold": 0.35}
    data, _ = build(tmp_path, bag, {"actions": fields})
    actions = data.rows(data.index.episodes[0], "actions")[:-1, 0] / foreign_bags.RATES[0]
    wanted = np.r_[np.ones(12), 0.5, np.zeros(17), np.ones(10)]
    np.testing.assert_allclose(actions, wanted, atol=1e-5)


def test_joint_velocities_are_mapped_by_name_and_missing_joints_are_zero(tmp_path):
    fields = {"source": "joint_velocity", "topic": "servo_node/delta_joint_cmds", "scale": 0.5}
    data, _ = build(tmp_path, foreign_bags.write(tmp_path / "bag", commands="jog"), {"actions": fields})
    (entry,) = data.index.episodes
    wanted = np.tile(foreign_bags.RATES[:2] / 0.5, (entry.frames - 1, 1))
    wanted[:10, 0] = 0.0
    np.testing.assert_allclose(data.rows(entry, "actions")[:-1], wanted, atol=1e-5)
    assert data.layout.action_names == ("shoulder.vel", "elbow.vel") and data.layout.action_space == "joints"


def test_planar_velocity_actions_can_be_derived_from_joint_states(tmp_path):
    """For a bag of the simulated arm, whose executed actions say the same."""
    from helpers import reach_bag
    from jepa_ros.robot.config import load_robot

    robot, bag = load_robot("openarm"), reach_bag.write(tmp_path / "bag")
    assert build_dataset(bags=[bag], out=tmp_path / "executed", size=16) == 0
    joints = {"topic": "joint_states", "joints": list(robot.joints), "gripper": list(robot.gripper)}
    actions = {"source": "states", "space": "planar_velocity"}
    changes = {"views": [{"topic": "image"}], "joint_states": joints, "actions": actions, "robot": "openarm"}
    data, _ = build(tmp_path, bag, changes)
    executed = Dataset(tmp_path / "executed")
    for one, other in zip(data.index.episodes, executed.index.episodes, strict=True):
        np.testing.assert_allclose(data.rows(one, "actions"), executed.rows(other, "actions"), atol=0.06)
    assert data.layout.action_space == executed.layout.action_space == "planar_velocity"


# --- states and pictures ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("degrees, velocity", [(True, True), (False, False), (True, False), (False, math.nan)])
def test_states_are_in_radians_with_velocities(tmp_path, degrees, velocity):
    bag = foreign_bags.write(tmp_path / "bag", degrees=degrees, velocity=velocity)
    states = MAPPING["joint_states"] | {"unit": "deg" if degrees else "rad"}
    data, _ = build(tmp_path, bag, {"joint_states": states})
    (entry,) = data.index.episodes
    q = np.array([foreign_bags.position(0.1 * k) for k in range(entry.frames)])
    wanted = np.column_stack([q[:, :2], np.tile(foreign_bags.RATES[:2], (entry.frames, 1)), q[:, 2]])
    np.testing.assert_allclose(data.rows(entry, "states"), wanted, atol=1e-4)
    assert data.layout.state_names == ("shoulder.pos", "elbow.pos", "shoulder.vel", "elbow.vel", "gripper_left.pos")


def test_a_joint_that_passes_half_a_turn_does_not_jump(tmp_path):
    bag = foreign_bags.write(tmp_path / "bag", ahead=2.3, velocity=math.nan)
    data, summary = build(tmp_path, bag)
    (entry,) = data.index.episodes
    states, actions = data.rows(entry, "states"), data.rows(entry, "actions")
    assert states[0, 0] < math.pi < states[-1, 0]
    np.testing.assert_allclose(np.diff(states[:, 0]), 0.1 * foreign_bags.RATES[0], atol=1e-4)
    np.testing.assert_allclose(states[:, 2], foreign_bags.RATES[0], atol=1e-4)
    np.testing.assert_allclose(actions, np.tile(foreign_bags.RATES[:2], (len(actions), 1)), atol=1e-4)


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize(
    "storage, compression",
    [
        (StoragePlugin.MCAP, None),
        (StoragePlugin.MCAP, "file"),
        (StoragePlugin.MCAP, "message"),
        (StoragePlugin.MCAP, "storage"),
        (StoragePlugin.SQLITE3, None),
        (StoragePlugin.SQLITE3, "file"),
        (StoragePlugin.SQLITE3, "message"),
    ],
)
def test_every_storage_and_compression_gives_the_same_episodes(tmp_path, raw, storage, compression):
    mode = foreign_bags.MODES[compression] if compression else None
    bag = foreign_bags.write(tmp_path / "bag", raw=raw, storage=storage, compression=mode, seconds=2.0)
    data, summary = build(tmp_path, bag, {"actions": TRAJECTORY})
    (entry,) = data.index.episodes
    assert greys(data, entry).tolist() == [foreign_bags.grey(0.1 * k) for k in range(21)]
    assert summary["problems"] == [] and summary["dropped"] == {}


@pytest.mark.parametrize("which", ["mcap", "db3"])
def test_a_single_bag_file_is_read(tmp_path, which):
    storage = StoragePlugin.MCAP if which == "mcap" else StoragePlugin.SQLITE3
    bag = foreign_bags.write(tmp_path / "bag", storage=storage, seconds=2.0)
    data, summary = build(tmp_path, next(bag.glob(f"*.{which}")))
    assert [e.frames for e in data.index.episodes] == [21] and summary["problems"] == []


def test_two_cameras_are_synchronised_and_cropped(tmp_path):
    cameras = ("/camera/image", "/wrist/image")
    bag = foreign_bags.write(
        tmp_path / "bag", cameras=cameras, skip=lambda topic, t: "camera" in topic and 1.02 < t < 1.98
    )
    views = [{"topic": "/wrist/image", "crop": [0, 0, 4, 4]}, {"topic": "/camera/image"}]
    data, summary = build(tmp_path, bag, {"views": views})
    frames = data.rows(data.index.episodes[0], "frames")
    assert (frames[:, 0] == 0).all(), "the black left of the picture"
    assert (frames[:, 1, 0, 15, 0] == [foreign_bags.grey(0.1 * k) for k in range(len(frames))]).all()
    assert len(data.index.episodes) == 2 and summary["dropped"]["images without one of each other view"] > 10


def test_the_mapping_can_select_recording_time_instead_of_stamps(tmp_path):
    bag = foreign_bags.write(tmp_path / "bag", stamp=lambda topic, t: t + (500.0 if "image" in topic else 0.0))
    with pytest.raises(InputError, match="found none .*images without joint states"):
        build(tmp_path, bag)
    (tmp_path / "recorded").mkdir()
    data, _ = build(tmp_path / "recorded", bag, {"clock": "recorded"})
    assert [e.frames for e in data.index.episodes] == [41]


# --- mapping files and drafts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "commands, source",
    [
        ("trajectory", "trajectory"),
        ("twist", "velocity"),
        ("stamped", "velocity"),
        ("array", "velocity"),
        ("jog", "joint_velocity"),
        (None, "states"),
    ],
)
def test_the_mapping_drafted_by_inspect_builds_the_bag(tmp_path, commands, source):
    bag = foreign_bags.write(tmp_path / "bag", commands=commands)
    result = inspect(bag, "--write", tmp_path / "m.yaml")
    assert result.exit_code == 0, result.output
    text, drafted = (tmp_path / "m.yaml").read_text(), read_mapping(tmp_path / "m.yaml")
    assert drafted.actions.source == source
    assert drafted.joint_states.gripper == ("gripper_left",) and "gripper: gripper_left by name" in text
    assert all(f"# {part}: " in text for part in ("views", "joint_states", "unit", "velocity", "actions", "episodes"))
    assert build_dataset(bags=[bag], out=tmp_path / "data", mapping=tmp_path / "m.yaml", size=16) == 0
    assert len(Dataset(tmp_path / "data").index.episodes) == 1


@pytest.mark.parametrize("velocity", [False, math.nan])
def test_a_drafted_mapping_detects_degrees_and_missing_velocities(tmp_path, velocity):
    bag = foreign_bags.write(tmp_path / "bag", degrees=True, velocity=velocity)
    assert inspect(bag, "--write", tmp_path / "m.yaml").exit_code == 0
    states = read_mapping(tmp_path / "m.yaml").joint_states
    assert (states.unit, states.velocity) == ("deg", "differences")


def test_a_drafted_mapping_leaves_out_depth_images(tmp_path):
    bag = foreign_bags.write(tmp_path / "bag", cameras=("/camera/color/image_raw", "/camera/depth/image_raw"), raw=True)
    result = inspect(bag, "--write", tmp_path / "m.yaml")
    assert [v.topic for v in read_mapping(tmp_path / "m.yaml").views] == ["/camera/color/image_raw"]
    assert "left out" in result.output


def test_inspect_reports_rates_gaps_and_clock_offsets(tmp_path):
    bag = foreign_bags.write(
        tmp_path / "bag",
        skip=lambda topic, t: "image" in topic and 1.02 < t < 1.98,
        stamp=lambda topic, t: t + (0.25 if "image" in topic else 0.0),
    )
    found = json.loads(inspect(bag, "--json").output)
    topics = {t["topic"]: t for t in found["topics"]}
    image = topics["/camera/image/compressed"]
    assert image["count"] == 62 and image["rate"] == pytest.approx(20, rel=1e-3) and image["gaps"] == 1
    assert image["longest_gap"] == pytest.approx(1.0, abs=0.01) and image["offset"] == pytest.approx(0.25, abs=1e-3)
    assert topics["/joint_states"]["gaps"] == 0 and topics["/joint_states"]["rate"] == pytest.approx(50, rel=1e-3)
    assert yaml.safe_load(found["mapping"])["actions"]["source"] == "trajectory"


def test_inspect_does_not_overwrite(tmp_path):
    bag = foreign_bags.write(tmp_path / "bag")
    (tmp_path / "m.yaml").write_text("mine")
    result = inspect(bag, "--write", tmp_path / "m.yaml")
    assert result.exit_code == 2 and "exists already" in result.stderr
    assert (tmp_path / "m.yaml").read_text() == "mine"


@pytest.mark.parametrize("path", sorted(config_path("mappings").glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_mappings_are_valid(path):
    assert read_mapping(path).views


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"surplus": 1}, "surplus: expected no such field"),
        ({"views": []}, "views: expected at least 1"),
        ({"views": [{"topic": "/a"}, {"topic": "a/compressed"}]}, "views: expected different topics"),
        ({"views": [{"topic": "/a", "crop": [0, 0, 0, 4]}]}, "crop"),
        ({"joint_states": {"joints": ["a", "a"]}}, "joints: expected different names"),
        ({"joint_states": {"joints": ["a"], "unit": "turns"}}, "unit"),
        ({"actions": {"source": "wishes"}}, "actions"),
        (
            {"actions": {"source": "velocity", "topic": "/t", "fields": ["linear.w"]}},
            "fields: expected different fields of",
        ),
        ({"actions": {"source": "states", "space": "planar_velocity"}}, "robot: expected"),
        ({"objects": {"puck": "/puck"}}, "robot: expected"),
        ({"clock": "wall"}, "clock"),
    ],
)
def test_an_invalid_mapping_is_refused_in_one_line(tmp_path, changes, words):
    path = tmp_path / "m.yaml"
    path.write_text(yaml.safe_dump(MAPPING | changes))
    with pytest.raises(InputError) as error:
        read_mapping(path)
    text = str(error.value)
    assert text.startswith(f"mapping {path}: ") and words in text and "\n" not in text
