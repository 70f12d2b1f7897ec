"""Recordings of a tool that moves in space: drafted mappings, datasets, what models of them record, and judging."""

import numpy as np
import pytest
import yaml

from helpers import reach3d_bag, reach_bag, sim_arm, small_models
from jepa_ros.bags.reader import open_bag
from jepa_ros.datasets.build import build_dataset
from jepa_ros.datasets.inspection import draft_mapping, read_topics
from jepa_ros.datasets.lerobot.export import export_dataset
from jepa_ros.datasets.lerobot.importing import import_dataset
from jepa_ros.datasets.recorded_episodes import read_splits
from jepa_ros.datasets.store import Dataset
from jepa_ros.errors import InputError
from jepa_ros.evaluation.bag.reading.bag_reader import _turn_actions
from jepa_ros.reporting.progress import ProgressDisplay
from jepa_ros.robot.config import load_robot
from jepa_ros.training.train_model import make_action_config
from jepa_ros.world_model.checkpoint import check_robot, check_velocity_space

ACTION = {"name": "tool_velocity", "dimension": 4, "max_speed": 0.2, "max_yaw_speed": 0.6}


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    return reach3d_bag.write(tmp_path_factory.mktemp("bag") / "play")


@pytest.fixture(scope="module")
def mapping(bag, tmp_path_factory):
    """The file that `data inspect` drafts."""
    file = tmp_path_factory.mktemp("mapping") / "mapping.yaml"
    with open_bag(bag) as opened:
        drafted, reason = draft_mapping(bag, read_topics(opened)[1])
    assert reason == ""
    file.write_text(drafted)
    return file


@pytest.fixture(scope="module")
def dataset(bag, mapping, tmp_path_factory):
    out = tmp_path_factory.mktemp("dataset") / "data"
    assert build_dataset(bags=[bag], out=out, mapping=mapping, size=16, workers=1) == 0
    return out


def read(data, robot=None):
    robot = robot or sim_arm.robot_3d()
    fields = (tuple(robot.joints), tuple(robot.gripper))
    with ProgressDisplay(quiet=True) as bar:
        return read_splits(data, robot, fields, 0.1, 16, 8, bar)


def test_the_drafted_mapping_names_the_robot_whose_actions_were_executed(mapping):
    found, robot = yaml.safe_load(mapping.read_text()), sim_arm.robot_3d()
    assert found["robot"] == "openarm_3d" and found["actions"]["source"] == "executed"
    assert found["joint_states"]["joints"] == robot.joints and found["joint_states"]["gripper"] == robot.gripper
    assert "space tool_velocity" in mapping.read_text()


def test_the_values_of_actions_have_names(dataset):
    layout = Dataset(dataset).layout
    assert layout.action_space == "tool_velocity" and layout.action_names == ("vx", "vy", "vz", "wz")


def test_a_dataset_gives_the_episodes_of_its_bag(bag, dataset):
    for one, other in zip(read(bag), read(dataset), strict=True):
        np.testing.assert_array_equal(one.actions, other.actions)
        np.testing.assert_allclose(one.tool, other.tool, atol=1e-5)
        assert one.tool.shape == (25, 4) and one.actions.shape == (24, 4) and one.split == other.split


def test_actions_can_be_derived_from_joint_states(bag, mapping, dataset, tmp_path):
    values = yaml.safe_load(mapping.read_text()) | {"actions": {"source": "states", "space": "tool_velocity"}}
    file = tmp_path / "states.yaml"
    file.write_text(yaml.safe_dump(values))
    assert build_dataset(bags=[bag], out=tmp_path / "states", mapping=file, size=16, workers=1) == 0
    derived, executed = Dataset(tmp_path / "states"), Dataset(dataset)
    assert derived.layout.action_names == executed.layout.action_names
    for one, other in zip(derived.index.episodes, executed.index.episodes, strict=True):
        np.testing.assert_allclose(derived.rows(one, "actions")[:-1], executed.rows(other, "actions")[:-1], atol=0.01)
    file.write_text(yaml.safe_dump(values | {"actions": {"source": "states", "space": "planar_velocity"}}))
    with pytest.raises(
        InputError, match="expected the action space planar_velocity, found tool_velocity on openarm_3d"
    ):
        build_dataset(bags=[bag], out=tmp_path / "other", mapping=file, size=16, workers=1)


def test_a_dataset_survives_export_and_import(dataset, tmp_path):
    assert export_dataset(dataset=dataset, out=tmp_path / "lerobot") == 0
    assert import_dataset(source=tmp_path / "lerobot", out=tmp_path / "back") == 0
    assert Dataset(tmp_path / "back").layout == Dataset(dataset).layout
    for one, other in zip(read(dataset), read(tmp_path / "back"), strict=True):
        np.testing.assert_array_equal(one.actions, other.actions)


def test_recordings_of_another_action_space_are_refused(bag, dataset, tmp_path):
    planar = reach_bag.write(tmp_path / "planar")
    with pytest.raises(
        InputError, match="in the space tool_velocity, 4 values each, found planar_velocity, 2; give the"
    ):
        read(planar)
    with pytest.raises(
        InputError, match="in the space planar_velocity, 2 values each, found tool_velocity, 4; give the"
    ):
        read(bag, sim_arm.robot())
    with pytest.raises(InputError, match="expected the actions planar_velocity, found tool_velocity"):
        read(dataset, sim_arm.robot())


def test_actions_faster_than_the_robots_action_space_are_refused(bag, mapping, tmp_path):
    robot = sim_arm.robot_3d()
    slow = robot.model_copy(update={"action_space": robot.action_space.model_copy(update={"max_speed": 0.05})})
    file = tmp_path / "slow.yaml"
    file.write_text(yaml.safe_dump(slow.model_dump(mode="json") | {"name": "slow"}))
    values = yaml.safe_load(mapping.read_text()) | {"robot": str(file)}
    values["actions"] = {"source": "states", "space": "tool_velocity"}
    (tmp_path / "mapping.yaml").write_text(yaml.safe_dump(values))
    assert build_dataset(bags=[bag], out=tmp_path / "fast", mapping=tmp_path / "mapping.yaml", size=16, workers=1) == 0
    with pytest.raises(
        InputError, match="of the actions are faster than the action space of slow allows, up to .* times"
    ):
        read(tmp_path / "fast", load_robot(file))


def test_models_record_the_action_space_of_their_robot():
    assert make_action_config(sim_arm.robot_3d()).model_dump() == ACTION
    planar = make_action_config(load_robot("openarm"))
    assert (planar.name, planar.dimension, planar.max_speed, planar.max_yaw_speed) == ("planar_velocity", 2, 0.2, None)
    model = small_models.config(sim_arm.robot_3d().joints, action=ACTION)
    check_robot(model, sim_arm.robot_3d())
    check_velocity_space(model)
    with pytest.raises(InputError, match="expected a robot with action space tool_velocity, found planar_velocity"):
        check_robot(model, sim_arm.robot())
    slow = small_models.config(sim_arm.robot_3d().joints, action=ACTION | {"max_yaw_speed": 0.3})
    with pytest.raises(InputError, match="of 0.2 m/s and 0.3 rad/s, found tool_velocity of 0.2 m/s and 0.6 rad/s"):
        check_robot(slow, sim_arm.robot_3d())


def test_recorded_actions_are_turned_with_the_axes():
    quarter = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    np.testing.assert_allclose(_turn_actions(np.array([[1.0, 0.0, 0.3, 0.4]]), quarter), [[0.0, 1.0, 0.3, 0.4]])
    np.testing.assert_allclose(_turn_actions(np.array([[1.0, 0.0, 0.3]]), quarter), [[0.0, 1.0, 0.3]])
    np.testing.assert_allclose(_turn_actions(np.array([[1.0, 0.0]]), quarter), [[0.0, 1.0]])
