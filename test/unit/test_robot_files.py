"""Shipped robot files: each loads and matches the description that its vendor publishes."""

import numpy as np
import pytest
import yaml

from helpers.vendor_arms import published
from jepa_ros.errors import InputError
from jepa_ros.resources import list_robots, resolve_robot
from jepa_ros.robot.collision.clearance import Clearance
from jepa_ros.robot.config import load_robot, read_robot
from jepa_ros.robot.files.check import find_problems
from jepa_ros.robot.files.gripper import check_gripper, measure_finger_spread
from jepa_ros.robot.motion.kinematics import Kinematics
from jepa_ros.robot.motion.limits import JointLimits

ROBOTS = list_robots()
REAL = ["franka_fr3", "kinova_gen3", "openarm_v10", "openarm_v10_left", "openarm_v2", "openarm_v2_left", "ur5e"]


def test_the_documented_robots_are_shipped():
    assert set(ROBOTS) >= {"openarm", *REAL}


@pytest.mark.parametrize("name", ROBOTS)
def test_a_shipped_file_has_no_problem_with_the_published_description(name):
    assert read_robot(name).name == name
    urdf = published(name) if name in ("openarm", *REAL) else None  # a new robot needs no entry in vendor_arms.txt
    assert find_problems(resolve_robot(name), urdf) == []


@pytest.mark.parametrize("name", REAL)
def test_limits_kinematics_and_clearance_can_be_built_from_each_robot_file(name):
    robot, urdf = load_robot(name), published(name)
    limits = JointLimits.from_robot(robot, urdf)
    kinematics = Kinematics(urdf, robot.joints, robot.tool_frame, robot.base_frame)
    Clearance.from_robot(robot, urdf, kinematics)
    home = np.array([robot.home[j] for j in robot.joints])
    assert limits.excess(home).max() == 0.0 and limits.jerk.min() > 0.0
    assert np.linalg.svd(kinematics.jacobian(home)[:3])[1].min() > 0.05, "home is next to a singular posture"


@pytest.mark.parametrize("name", REAL)
def test_files_copied_from_a_vendor_name_their_source(name):
    robot, text = read_robot(name), resolve_robot(name).read_text()
    assert "Sources of the names" in text or "same_as" in text
    assert robot.bringup and robot.bringup.mock_arguments


@pytest.mark.parametrize("name", ["openarm_v10", "openarm_v2"])
def test_the_left_arm_mirrors_the_right_one_with_the_same_bringup(name):
    right, left = read_robot(name), read_robot(f"{name}_left")
    assert [j.replace("right", "left") for j in right.joints] == left.joints
    assert [c.name.replace("right", "left") for c in right.controllers] == [c.name for c in left.controllers]
    assert right.bringup == left.bringup and right.camera == left.camera
    mirrored = sorted((x, -y) for x, y in right.action_space.workspace)
    assert mirrored == sorted(left.action_space.workspace)


PAIRS = [(name, f"{name}_left") for name in ROBOTS if f"{name}_left" in ROBOTS]


def of(name):
    robot, urdf = load_robot(name), published(name)
    kinematics = Kinematics(urdf, robot.joints, robot.tool_frame, robot.base_frame)
    return robot, JointLimits.from_robot(robot, urdf), kinematics


def mirrored_signs(right, left, home):
    """Return for each joint 1 or -1: the sign that a mirrored posture has on the left. Axes of rotation are mirrored
    in the plane y = 0 as pseudovectors."""
    axes = right.jacobian(home)[3:] * [[-1], [1], [-1]]
    signs = (axes * left.jacobian(home)[3:]).sum(0)
    return np.sign(signs)


@pytest.mark.parametrize(("right", "left"), PAIRS)
def test_every_left_arm_mirrors_its_right_one_in_axes_limits_and_home(right, left):
    (right_robot, right_limits, right_arm), (left_robot, left_limits, left_arm) = of(right), of(left)
    signs = mirrored_signs(right_arm, left_arm, np.zeros(len(right_robot.joints)))
    lower, upper = right_limits.lower * signs, right_limits.upper * signs
    np.testing.assert_allclose(np.minimum(lower, upper), left_limits.lower, atol=1e-3)
    np.testing.assert_allclose(np.maximum(lower, upper), left_limits.upper, atol=1e-3)
    home, left_home = (np.array([r.home[j] for j in r.joints]) for r in (right_robot, left_robot))
    np.testing.assert_allclose(home * signs, left_home)
    for q in np.random.default_rng(0).uniform(right_limits.lower, right_limits.upper, (20, len(home))):
        place = right_arm.forward(q)[0] * [1, -1, 1]
        np.testing.assert_allclose(
            left_arm.forward(q * signs)[0], place, atol=0.01
        )  # version 1.0: its hands are not mirrored by 9 mm


@pytest.mark.parametrize("name", [name for name in REAL if read_robot(name).gripper_controller])
def test_opening_a_gripper_moves_its_fingers_apart(name):
    robot, urdf = read_robot(name), published(name)
    lower, upper = measure_finger_spread(urdf, robot.gripper[0])
    if name == "kinova_gen3":
        assert lower == upper == 0.0  # the place of its fingers is made up
    else:
        assert (lower > upper) == (robot.gripper_controller.open == "lower") and abs(lower - upper) > 0.02


@pytest.mark.parametrize(
    ("name", "wrong", "right"), [("openarm_v2_left", "lower", "upper"), ("franka_fr3", "lower", "upper")]
)
def test_a_gripper_that_closes_when_it_should_open_is_a_problem_in_one_line(name, wrong, right):
    robot = read_robot(name)
    controller = robot.gripper_controller.model_copy(update={"open": wrong})
    [problem] = check_gripper(robot.model_copy(update={"gripper_controller": controller}), published(name))
    assert f"open: {wrong} brings the fingers together" in problem and problem.endswith(f"set open: {right}")


def test_command_interface_selects_controllers_and_the_first_is_the_default():
    topics = {"": "joint_trajectory_controller/joint_trajectory", "servo_twist": "servo_node/delta_twist_cmds"}
    topics["forward_position"] = "forward_position_controller/commands"
    topics["servo_joint_jog"] = "servo_node/delta_joint_cmds"
    for interface, topic in topics.items():
        assert [c.command_topic for c in load_robot("ur5e", interface).controllers] == [topic]
    with pytest.raises(
        InputError, match="command_interface 'servo_twist': expected one that robot franka_fr3 has, found"
    ):
        load_robot("franka_fr3", "servo_twist")


@pytest.mark.parametrize(
    ("controllers", "complaint"),
    [
        ([("a", "joint_trajectory_controller/JointTrajectoryController", 5)], "each joint once for joint_trajectory"),
        (
            [
                ("a", "joint_trajectory_controller/JointTrajectoryController", 6),
                ("b", "forward_command_controller/ForwardCommandController", 3),
            ],
            "each joint once for forward_position",
        ),
    ],
)
def test_every_command_interface_must_command_all_joints(tmp_path, controllers, complaint):
    keys = yaml.safe_load(resolve_robot("ur5e").read_text())
    keys["controllers"] = [{"name": n, "type": t, "joints": keys["joints"][:count]} for n, t, count in controllers]
    path = tmp_path / "arm.yaml"
    path.write_text(yaml.safe_dump(keys))
    with pytest.raises(InputError, match=complaint):
        load_robot(path)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{name: a, same_as: nowhere, replace: {right: left}}", "robot 'nowhere'"),
        ("{name: a, same_as: openarm_v10_left, replace: {left: right}}", "expected a robot with a file of its own"),
        ("{name: a, same_as: openarm_v10}", "replace: expected a value, found none"),
        ("{name: a, same_as: openarm_v10, replace: {right: left}, wings: 2}", "wings: expected no such field"),
    ],
)
def test_an_invalid_same_as_is_one_clear_line(tmp_path, text, complaint):
    path = tmp_path / "arm.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=complaint) as refused:
        load_robot(path)
    assert "\n" not in str(refused.value)


def test_a_continuous_joint_has_one_position_and_no_limits():
    robot, urdf = load_robot("kinova_gen3"), published("kinova_gen3")
    kinematics = Kinematics(urdf, robot.joints, robot.tool_frame, robot.base_frame)
    home = np.array([robot.home[j] for j in robot.joints])
    turned = home + [2 * np.pi, 0, 0, 0, 0, 0, 0]
    np.testing.assert_allclose(kinematics.forward(turned)[0], kinematics.forward(home)[0], atol=1e-9)
    assert np.isinf(JointLimits.from_robot(robot, urdf).upper[[0, 2, 4, 6]]).all()
