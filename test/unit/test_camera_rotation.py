"""Camera rotation: estimated from predicted and measured motion, and written to a robot's YAML."""

from __future__ import annotations

import numpy as np
import pytest
import yaml
from scipy.spatial.transform import Rotation

from jepa_ros.errors import InputError
from jepa_ros.resources import config_path
from jepa_ros.robot.camera_rotation import estimate_rotation
from jepa_ros.robot.config import RobotConfig
from jepa_ros.robot.files.yaml_edit import set_key


def moves(dimension, count=300, noise=0.3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, dimension)), rng.normal(scale=noise, size=(count, dimension))


@pytest.mark.parametrize("angles", [(0, 0, 0), (0, 0, 25), (10, -20, 35), (0, 0, 170)])
def test_a_known_rotation_is_estimated_within_a_degree_from_noisy_moves(angles):
    true = Rotation.from_euler("xyz", angles, degrees=True)
    measured, noise = moves(3, noise=0.1)
    predicted = 0.7 * true.inv().apply(measured) + noise  # too short, as imagined motion often is
    found = estimate_rotation(predicted, measured)
    off = np.degrees((true.inv() * Rotation.from_matrix(found.rotation)).magnitude())
    assert off < 1.0 and found.error_degrees < 2.0
    assert abs(found.degrees - np.degrees(true.magnitude())) < 1.0
    assert 1.2 < found.scale < 1.5 and found.explained > 0.9
    assert np.allclose(Rotation.from_quat(found.quaternion).as_matrix(), found.rotation)


@pytest.mark.parametrize("degrees", [-40.0, 3.0, 120.0])
def test_planar_moves_give_a_rotation_about_the_vertical_axis(degrees):
    turn = Rotation.from_euler("z", degrees, degrees=True)
    measured, noise = moves(2, noise=0.15)
    predicted = turn.inv().as_matrix()[:2, :2] @ measured.T
    found = estimate_rotation(predicted.T + noise, measured)
    assert np.degrees((turn.inv() * Rotation.from_matrix(found.rotation)).magnitude()) < 1.5
    assert np.allclose(found.axis, [0, 0, np.sign(degrees)], atol=1e-6)


def test_outliers_are_left_out():
    turn = Rotation.from_euler("xyz", (5, 10, 15), degrees=True)
    measured, noise = moves(3, noise=0.05)
    predicted = turn.inv().apply(measured) + noise
    predicted[:15] = -8.0 * predicted[:15]
    found = estimate_rotation(predicted, measured)
    assert np.degrees((turn.inv() * Rotation.from_matrix(found.rotation)).magnitude()) < 1.0
    assert found.left_out >= 15


LINE = np.outer(np.linspace(-1, 1, 50), [1.0, 2.0, 0.5])
CLOUD = moves(3, 50)[0]


@pytest.mark.parametrize(
    ("predicted", "measured", "words"),
    [
        (CLOUD[:5], CLOUD[:5], "at least 10, found 5"),
        (LINE, LINE, "along one line"),
        (CLOUD, LINE, "along one line"),
        (np.zeros((50, 3)), CLOUD, "no predicted motion"),
        (CLOUD, np.zeros((50, 3)), "no measured motion"),
        (CLOUD * [1, 1, -1], CLOUD, "mirrored"),
        (moves(3, 50, seed=1)[0], CLOUD, "at least 20 %"),
        (np.where(CLOUD > 2, np.nan, CLOUD), CLOUD, "NaN or Inf"),
        (CLOUD[:, :1], CLOUD[:, :1], "arrays (N, 2) or (N, 3)"),
    ],
)
def test_moves_that_do_not_define_a_rotation_are_refused(predicted, measured, words):
    if "20" in words:  # a chance that they agree is left out
        predicted = predicted - predicted.mean(0)
        predicted -= measured @ np.linalg.lstsq(measured, predicted, rcond=None)[0]
    with pytest.raises(InputError, match=words.replace("(", r"\(").replace(")", r"\)")) as refused:
        estimate_rotation(predicted, measured)
    assert "\n" not in str(refused.value)


# -- the robot's YAML --------------------------------------------------------------------------------------------------

TURN = [0.0, 0.0, 0.1, 0.995]
BLOCK = """# a robot
name: arm   # its name
camera:
  # where it is
  frame_id: eye
  topic: image  # of the driver

home: {a: 1}  # rad
"""


def test_adding_a_key_keeps_the_comments_of_the_shipped_robot():
    text = config_path("robots", "openarm.yaml").read_text()
    changed = set_key(text, "camera", "rotation_to_base", TURN, "robot")
    assert RobotConfig.model_validate(yaml.safe_load(changed)).camera.rotation_to_base == tuple(TURN)
    assert changed.replace(", rotation_to_base: [0, 0, 0.1, 0.995]", "") == text


def test_in_a_yaml_block_mapping_the_key_is_added_on_a_line_of_its_own():
    changed = set_key(BLOCK, "camera", "rotation_to_base", TURN, "robot")
    lines = changed.splitlines()
    assert lines[lines.index("  topic: image  # of the driver") + 1] == "  rotation_to_base: [0, 0, 0.1, 0.995]"
    assert [line for line in lines if "rotation" not in line] == BLOCK.splitlines()


@pytest.mark.parametrize("text", [BLOCK, "camera: {frame_id: eye, topic: image}  # flow\n", "camera:\n  topic: image"])
def test_an_existing_key_is_changed(text):
    once = set_key(text, "camera", "rotation_to_base", TURN, "robot")
    twice = set_key(once, "camera", "rotation_to_base", [0.5, 0.5, 0.5, 0.5], "robot")
    assert twice == once.replace("[0, 0, 0.1, 0.995]", "[0.5, 0.5, 0.5, 0.5]")


@pytest.mark.parametrize("text", ["name: arm\n", "camera: front\n", "camera: {}\n", "a: [\n"])
def test_a_file_without_a_camera_is_refused_in_one_line(text):
    with pytest.raises(InputError, match="robot: expected") as refused:
        set_key(text, "camera", "rotation_to_base", TURN, "robot")
    assert "\n" not in str(refused.value)
