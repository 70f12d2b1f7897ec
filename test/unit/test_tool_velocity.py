"""Tool velocity: the tool moves in space and turns about z, within limits, from knots to joints and back to actions."""

import numpy as np
import pytest
import yaml

from helpers import sim_arm
from jepa_ros.errors import InputError
from jepa_ros.robot.collision.clearance import WORKSPACE_TOLERANCE
from jepa_ros.robot.config import RobotConfig, load_robot, require_tool_space, require_velocity_space
from jepa_ros.robot.files.check import find_problems
from jepa_ros.robot.motion.action_space import make_space
from jepa_ros.robot.motion.path import Path
from jepa_ros.robot.motion.tool_path import sample_random_play
from jepa_ros.robot.motion.velocity_space import PlanarVelocity, ToolVelocity, make_velocity_space

PERIOD = 0.1


def changed(**keys):
    values = sim_arm.robot_3d().model_dump()
    space = values["action_space"] | keys
    return RobotConfig.model_validate(values | {"action_space": space})


def without_yaw():
    return changed(max_yaw_speed=None, yaw=None)


def make(robot):
    return make_velocity_space(robot, sim_arm.space().kinematics, PERIOD)


@pytest.fixture(params=["with yaw", "without"])
def space(request):
    return sim_arm.space_3d() if request.param == "with yaw" else make(without_yaw())


def play(space, seed, ticks=60):
    """Return the start (D,), knots and trajectory of an episode of random play from rest."""
    rng = np.random.default_rng(seed)
    x = space.sample(rng)
    q, rest = space.inverse_kinematics(x), np.zeros(7)
    knots = space.constrain(x, np.zeros(space.axes), space.sample_play(ticks, rng))
    return x, knots, space.to_trajectory(q, rest, rest, knots)


def turned_by(space, q):
    """Return the angle in rad between the tool's orientation and that of its coordinates."""
    rotation, wanted = space.kinematics.forward(q)[1], space.pose(space.tool_coordinates(q))[1]
    return np.arccos(np.clip(0.5 * (np.trace(rotation @ wanted.T) - 1.0), -1.0, 1.0))


def test_each_value_has_a_name_a_unit_and_a_full_speed():
    assert sim_arm.space().names == ("vx", "vy") and sim_arm.space().units == ("m/s", "m/s")
    turning, moving = sim_arm.space_3d(), make(without_yaw())
    assert moving.names == ("vx", "vy", "vz") and moving.dimension == moving.axes == 3
    assert turning.names == ("vx", "vy", "vz", "wz") and turning.units == ("m/s", "m/s", "m/s", "rad/s")
    np.testing.assert_allclose(turning.full_speeds, [0.2, 0.2, 0.2, 0.6])
    for robot, wanted in ((sim_arm.robot(), 2), (without_yaw(), 3), (sim_arm.robot_3d(), 4)):
        assert robot.action_space.dimension == make(robot).dimension == wanted


def test_the_space_of_a_robot_is_made_by_the_type_in_its_file():
    kinematics = sim_arm.space().kinematics
    for make_one in (make_space, make_velocity_space):
        assert isinstance(make_one(sim_arm.robot(), kinematics, PERIOD), PlanarVelocity)
        assert isinstance(make_one(sim_arm.robot_3d(), kinematics, PERIOD), ToolVelocity)
    assert require_velocity_space(sim_arm.robot()) is sim_arm.robot().action_space
    assert require_tool_space(sim_arm.robot_3d()).yaw == (-0.6, 0.6)
    with pytest.raises(InputError, match="robot openarm: expected the action space tool_velocity, found planar"):
        ToolVelocity(sim_arm.robot(), kinematics)
    with pytest.raises(InputError, match="robot openarm_3d: expected the action space planar_velocity, found tool"):
        PlanarVelocity(sim_arm.robot_3d(), kinematics)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"workspace": [[0.1, 0, 0], [0.1, 1, 1]]}, "workspace: expected low < high on every axis"),
        ({"yaw": None}, "yaw: expected a value beside max_yaw_speed, found none"),
        ({"max_yaw_speed": None}, "max_yaw_speed: expected a value beside yaw, found none"),
        ({"yaw": [0.5, -0.5]}, "yaw: expected low < high between"),
        ({"yaw": [-90, 90]}, "yaw: expected low < high between"),
        ({"max_yaw_speed": 60.0}, "max_yaw_speed: expected"),
        ({"max_speed": 0.0}, "max_speed: expected"),
        ({"height": 0.4}, "height"),
    ],
)
def test_invalid_keys_are_refused_by_name(tmp_path, keys, said):
    file, values = tmp_path / "arm.yaml", sim_arm.robot_3d().model_dump(mode="json")
    file.write_text(yaml.safe_dump(values | {"action_space": values["action_space"] | keys}))
    with pytest.raises(InputError, match=said) as refusal:
        load_robot(file)
    assert "\n" not in str(refusal.value)


def test_the_check_of_a_robot_file_names_corners_that_are_out_of_reach(tmp_path):
    def problems(**keys):
        file, values = tmp_path / "arm.yaml", sim_arm.robot_3d().model_dump(mode="json")
        file.write_text(yaml.safe_dump(values | {"action_space": values["action_space"] | keys}))
        return find_problems(file, sim_arm.scene().urdf)

    assert problems() == []
    far = problems(workspace=[[0.12, -0.37, 0.46], [0.9, -0.2, 0.6]])
    assert len(far) == 4 and "workspace: corner (0.9, -0.37, 0.46) m is out of reach by" in far[0]
    turned = problems(yaw=[-3.0, 0.6])
    assert any("yaw: at the corner (0.12, -0.37, 0.46) m the tool cannot turn" in problem for problem in turned)


def test_coordinates_are_those_of_the_pose_that_inverse_kinematics_reaches(space):
    rng = np.random.default_rng(0)
    for _ in range(50):
        x = space.sample(rng)
        q = space.inverse_kinematics(x)
        position, rotation = space.kinematics.forward(q)
        wanted = space.pose(x)
        np.testing.assert_allclose(position, wanted[0], atol=1e-3)
        angle = np.arccos(np.clip(0.5 * (np.trace(rotation @ wanted[1].T) - 1.0), -1.0, 1.0))
        assert angle < (0.01 if space.turns else 0.08), "the posture weighs more where the tool does not turn"
        np.testing.assert_allclose(space.tool_coordinates(q), x, atol=2e-3)


def test_the_velocity_of_the_tool_is_the_derivative_of_its_coordinates(space):
    q, qd, dt = space.inverse_kinematics(space.centre), np.random.default_rng(1).normal(0, 0.1, 7), 1e-5
    difference = (space.tool_coordinates(q + dt * qd) - space.tool_coordinates(q - dt * qd)) / (2 * dt)
    np.testing.assert_allclose(space.tool_knot(q, qd), difference / space.max_speed, atol=5e-3)


@pytest.mark.parametrize("seed", range(6))
def test_executed_actions_are_the_motion_of_the_knots(space, seed):
    x, knots, trajectory = play(space, seed)
    q = trajectory.sample(PERIOD * np.arange(len(knots) + 1))[0]
    executed = np.array([space.executed(*pair) for pair in zip(q[:-1], q[1:], strict=True)])
    wanted = 0.5 * (np.vstack([np.zeros(space.axes), knots[:-1]]) + knots)
    np.testing.assert_allclose(executed, wanted, atol=0.02)
    assert np.abs(executed).max() <= 1.01


@pytest.mark.parametrize("seed", range(6))
def test_play_keeps_speed_acceleration_workspace_and_joint_limits(space, seed):
    x, knots, trajectory = play(space, seed)
    assert np.linalg.norm(knots[:, :3], axis=1).max() <= 1.0 + 1e-9 and np.abs(knots).max() <= 1.0 + 1e-9
    changes = np.diff(np.vstack([np.zeros(space.axes), knots]), axis=0)
    assert np.abs(changes).max() <= space.max_change + 1e-9
    reached = np.array([space.tool_coordinates(q) for q in trajectory.positions])
    low, high = space.bounds
    assert (reached > low - WORKSPACE_TOLERANCE).all() and (reached < high + WORKSPACE_TOLERANCE).all()
    states = np.stack((trajectory.positions, trajectory.velocities, trajectory.accelerations), axis=1)
    usage = sim_arm.limits().compute_usage(Path(trajectory.times, states).divided())
    assert usage.within_limits, usage.text
    assert np.abs(trajectory.velocities[-1]).max() == 0.0


def test_moving_and_turning_have_a_full_speed_each():
    space = sim_arm.space_3d()
    x = space.centre - [0.06, 0.0, 0.0, 0.0]  # with room to brake
    knots = space.constrain(x, np.array([1.0, 0.0, 0.0, 1.0]), np.array([[2.0, 0.0, 0.0, 1.0]]))
    np.testing.assert_allclose(knots, [[1.0, 0.0, 0.0, 1.0]], atol=1e-9)
    np.testing.assert_allclose(space.speed_shares(np.array([0.6, 0.0, 0.8, -0.3])), [1.0, 1.0, 1.0, 0.3])


def test_the_tool_keeps_the_rest_of_its_orientation_while_it_turns():
    space = sim_arm.space_3d()
    turns = [turned_by(space, q) for seed in range(4) for q in play(space, seed)[2].positions]
    assert max(turns) < 0.02
    yaw = [space.tool_coordinates(q)[3] / space.metres_per_rad for q in play(space, 2)[2].positions]
    assert np.ptp(yaw) > 0.3


def test_a_path_returns_to_the_same_joints():
    space = sim_arm.space_3d()
    x, rest = space.centre, np.zeros(7)
    q = space.inverse_kinematics(x)
    way = np.array([0.4, 0.3, -0.3, 0.5])
    knots = np.vstack([np.tile(way, (5, 1)), np.zeros((1, 4)), np.tile(-way, (5, 1)), np.zeros((1, 4))])
    trajectory = space.to_trajectory(q, rest, rest, knots)
    np.testing.assert_allclose(trajectory.positions[-1], q, atol=0.01)


def test_the_limit_of_yaw_is_kept_like_the_workspace():
    space = sim_arm.space_3d()
    knots = space.constrain(space.centre, np.zeros(4), np.tile([0.0, 0.0, 0.0, 1.0], (40, 1)))
    travelled = (
        space.centre[3] + 0.5 * PERIOD * space.max_speed * (knots + np.vstack([np.zeros(4), knots[:-1]])).sum(0)[3]
    )
    assert travelled / space.metres_per_rad == pytest.approx(0.6, abs=0.02) and knots[-1, 3] < 0.05
    low, high = space.bounds
    assert space.is_inside(space.centre) and space.is_inside(space.centre[:3])
    assert not space.is_inside(np.append(space.centre[:3], high[3] + 0.01)) and not space.is_inside(high[:3] + 0.01)
    assert space.border[0].shape == (6, 3), "Clearance knows positions only"


def test_actions_are_turned_into_the_models_axes():
    half = np.sqrt(0.5)
    about_z, about_x = (0.0, 0.0, half, half), (half, 0.0, 0.0, half)

    def turned(robot, quaternion):
        camera = robot.camera.model_copy(update={"rotation_to_base": quaternion})
        return make(RobotConfig.model_validate(robot.model_copy(update={"camera": camera}).model_dump()))

    motion = np.array([0.1, 0.2, 0.3, 0.4])
    space = turned(sim_arm.robot_3d(), about_z)
    np.testing.assert_allclose(space.to_model_axes(motion), [0.2, -0.1, 0.3, 0.4], atol=1e-12)
    np.testing.assert_allclose(space.to_base_axes(space.to_model_axes(motion)), motion, atol=1e-12)
    space = turned(without_yaw(), about_x)
    np.testing.assert_allclose(space.to_model_axes(motion[:3]), [0.1, 0.3, -0.2], atol=1e-12)
    with pytest.raises(ValueError, match="tool_velocity with yaw allows no other"):
        turned(sim_arm.robot_3d(), about_x)


def test_random_play_in_a_plane_is_as_before_and_uniform_over_directions_in_space():
    plane = sample_random_play(200, np.random.default_rng(5))
    np.testing.assert_array_equal(plane, sim_arm.space().sample_play(200, np.random.default_rng(5)))
    knots = sample_random_play(20_000, np.random.default_rng(0), 3, 1)
    assert knots.shape == (20_000, 4)
    spread = knots.std(0)
    assert spread[:3].max() / spread[:3].min() < 1.1 and 0.4 < spread[3] < 0.8
    assert np.abs(np.corrcoef(knots.T) - np.eye(4)).max() < 0.1
