"""Forward and inverse kinematics of the simulated arm."""

import numpy as np
import pytest

from helpers import sim_arm
from jepa_ros.errors import InputError
from jepa_ros.robot.motion.kinematics import Kinematics

RNG = np.random.default_rng(2)
ARM = tuple(sim_arm.robot().joints)
TOOL = sim_arm.robot().tool_frame


@pytest.fixture(scope="module")
def kinematics():
    return Kinematics(sim_arm.scene().urdf, ARM, TOOL, "world")


def random_pose(kinematics):
    return RNG.uniform(np.maximum(kinematics.lower, -3.0), np.minimum(kinematics.upper, 3.0))


def test_forward_kinematics_match_the_simulator(kinematics):
    scene = sim_arm.scene()
    for _ in range(30):
        q = random_pose(kinematics)
        scene.reset(dict(zip(ARM, q, strict=True)))
        position, rotation = kinematics.forward(q)
        np.testing.assert_allclose(position, scene.frame_position("openarm_right_ee_control_point"), atol=1e-6)
        measured = scene.data.site_xmat[scene.model.site("right_ee_control_point").id].reshape(3, 3)
        np.testing.assert_allclose(rotation, measured, atol=1e-6)


def test_the_jacobian_is_the_derivative_of_forward_kinematics(kinematics):
    q, h = random_pose(kinematics), 1e-6
    columns = []
    for step in h * np.eye(7):
        (p1, r1), (p0, r0) = kinematics.forward(q + step), kinematics.forward(q - step)
        spin = (r1 - r0) / (2 * h) @ kinematics.forward(q)[1].T
        columns.append([*(p1 - p0) / (2 * h), spin[2, 1], spin[0, 2], spin[1, 0]])
    np.testing.assert_allclose(kinematics.jacobian(q), np.transpose(columns), atol=1e-6)


def test_joints_are_in_the_given_order(kinematics):
    order = RNG.permutation(7)
    shuffled = Kinematics(sim_arm.scene().urdf, [ARM[i] for i in order], TOOL, "world")
    q = random_pose(kinematics)
    np.testing.assert_allclose(shuffled.forward(q[order])[0], kinematics.forward(q)[0], atol=1e-12)
    np.testing.assert_allclose(shuffled.jacobian(q[order]), kinematics.jacobian(q)[:, order], atol=1e-12)
    np.testing.assert_array_equal(shuffled.upper, kinematics.upper[order])


def test_poses_are_in_the_base_frame(kinematics):
    base = "openarm_right_link1"
    q = random_pose(kinematics)
    relative = Kinematics(sim_arm.scene().urdf, ARM, TOOL, base)
    of_base = Kinematics(sim_arm.scene().urdf, ARM, base, "world")
    (p, r), (pb, rb), (pt, rt) = relative.forward(q), of_base.forward(q), kinematics.forward(q)
    np.testing.assert_allclose(rb @ p + pb, pt, atol=1e-12)
    np.testing.assert_allclose(rb @ r, rt, atol=1e-12)
    np.testing.assert_allclose(rb @ relative.jacobian(q)[:3], kinematics.jacobian(q)[:3], atol=1e-12)


def test_a_path_there_and_back_returns_to_the_same_joints():
    space = sim_arm.space()
    way = np.linspace([0.10, -0.30], [0.28, -0.22], 15)
    start = q = space.inverse_kinematics(way[0])
    for xy in [*way, *way[::-1]]:
        q = space.inverse_kinematics(xy, q)
        np.testing.assert_allclose(space.tool_coordinates(q), xy, atol=2e-3)
    np.testing.assert_allclose(q, start, atol=0.02)


def test_inverse_kinematics_keep_height_orientation_and_joint_limits():
    space, robot = sim_arm.space(), sim_arm.robot()
    kinematics = space.kinematics
    upright = kinematics.forward(np.array([robot.home[j] for j in ARM]))[1]
    for xy in space.workspace * 0.9 + 0.1 * space.workspace.mean(0):
        q = space.inverse_kinematics(xy)
        position, rotation = kinematics.forward(q)
        np.testing.assert_allclose(position, [*xy, space.height], atol=2e-3)
        assert np.trace(rotation.T @ upright) > 1 + 2 * np.cos(0.2), "turned by more than 0.2 rad"
        assert (q > kinematics.lower).all() and (q < kinematics.upper).all()


def test_a_position_out_of_reach_is_refused():
    with pytest.raises(InputError, match=r"\[2.0, 0.0\] m: out of reach by"):
        sim_arm.space().inverse_kinematics(np.array([2.0, 0.0]))


@pytest.mark.parametrize(
    "urdf, joints, tool, words",
    [
        (None, (*ARM, "elbow"), TOOL, "joints .'elbow'."),
        (None, ARM, "no_tool", "link 'no_tool'"),
        ("<robot", ARM, TOOL, "URDF"),
        ("", ARM, TOOL, "URDF"),
        ("<robot name='r'><link name='world'/></robot>", ARM, TOOL, "openarm_right_joint1"),
    ],
)
def test_a_missing_joint_or_frame_is_one_clear_line(urdf, joints, tool, words, capfd):
    with pytest.raises(InputError, match=words) as error:
        Kinematics(sim_arm.scene().urdf if urdf is None else urdf, joints, tool)
    assert str(error.value).startswith("robot_description") and "\n" not in str(error.value)


def test_joint_positions_of_another_arm_are_refused(kinematics):
    with pytest.raises(InputError, match=r"\(7,\).*\(6,\)"):
        kinematics.forward(np.zeros(6))
