"""Pose delta: actions of a tick's motion, states from joints, and the robots that it rejects."""

import numpy as np
import pytest
import torch
from sensor_msgs.msg import JointState

from helpers import sim_arm, small_models
from helpers.gate_simulation import minimum_jerk
from jepa_ros.errors import InputError
from jepa_ros.nodes.common.convert import to_stamp
from jepa_ros.robot.config import RobotConfig, load_robot, require_planar_space
from jepa_ros.robot.gate.ticks import ControlTicks
from jepa_ros.robot.motion.action_space import PlanarVelocity, PoseDelta, euler_angles, make_space
from jepa_ros.robot.motion.path import Path
from jepa_ros.world_model.checkpoint import check_robot, check_velocity_space
from jepa_ros.world_model.config import ProprioceptionConfig
from jepa_ros.world_model.history import StateHistory
from jepa_ros.world_model.proprioception import ProprioceptionReader, ToolPoseReader, make_reader
from jepa_ros.world_model.vjepa2_ac.model import STATE_FIELDS, euler_matrix, matrix_euler, move

POSES = {"type": "pose_delta", "max_translation": 0.05, "max_rotation": 0.2}
STATE = {"kind": "tool_pose", "gripper": STATE_FIELDS, "mean": (0.0,) * 7, "std": (1.0,) * 7}
MOVE = {"name": "pose_delta", "dimension": 7}


def robot(**changes):
    """The simulated arm, commanded by poses."""
    return RobotConfig.model_validate(sim_arm.robot().model_dump() | {"action_space": POSES} | changes)


def kinematics():
    return sim_arm.space().kinematics


def joints(count, seed=0):
    """(count, J) rad within the limits."""
    k = kinematics()
    return np.random.default_rng(seed).uniform(np.maximum(k.lower, -3), np.minimum(k.upper, 3), (count, len(k.joints)))


def finger(where):
    """Position of the gripper joint at this share of its range."""
    from jepa_ros.robot.urdf import RobotDescription

    limits = RobotDescription.from_urdf(sim_arm.scene().urdf).joints[sim_arm.robot().gripper[0]]
    return limits.lower + where * (limits.upper - limits.lower)


def reader(**changes):
    return make_reader(ProprioceptionConfig(**STATE), robot(**changes), sim_arm.scene().urdf)


def message(q, gripper=0.0):
    names = ["other", *reversed(sim_arm.robot().joints), *sim_arm.robot().gripper]
    return JointState(name=names, position=[9.0, *q[::-1], gripper])


# ---------------------------------------------------------------------------------------- actions


def test_the_executed_action_leads_to_the_next_state():
    space, read = make_space(robot(), kinematics(), 0.25), reader()
    assert (space.name, space.dimension, space.period) == ("pose_delta", 7, 0.25)
    for q, way in zip(joints(100), np.random.default_rng(1).uniform(-0.3, 0.3, (100, 7)), strict=True):
        before, after = (read.read(message(at, finger(0.4)))[1] for at in (q, q + way))
        action = space.executed(q, q + way)
        moved = move(torch.from_numpy(before), torch.from_numpy(action)).numpy()
        np.testing.assert_allclose(np.delete(moved, [3, 4, 5]), np.delete(after, [3, 4, 5]), atol=1e-6)
        turned, wanted = (euler_matrix(torch.from_numpy(state[3:6])) for state in (moved, after))
        torch.testing.assert_close(turned, wanted, atol=1e-6, rtol=0)
        assert action[6] == 0.0


def test_an_arm_at_rest_has_a_zero_action():
    q = joints(1)[0]
    np.testing.assert_allclose(make_space(robot(), kinematics(), 0.25).executed(q, q), np.zeros(7), atol=1e-12)


def test_actions_of_the_gate_add_up_to_the_whole_motion():
    start, way = joints(1)[0], np.full(7, 0.2)
    plan = minimum_jerk(start, start + way, 2.0)
    path = Path(plan.times, np.stack([plan.positions, plan.velocities, plan.accelerations], axis=1))
    space = make_space(robot(), kinematics(), 0.25)
    ticks = ControlTicks(0.25, space.executed)
    for t in np.arange(0.0, 2.001, 0.05):
        ticks.collect(path, t, 0.0)
    values = np.array([tick.values for tick in ticks.take()])
    assert values.shape == (8, 7)
    (before, first), (after, second) = map(kinematics().forward, (start, start + way))
    np.testing.assert_allclose(values[:, :3].sum(0), after - before, atol=1e-6)
    turned = first
    for row in values:
        turned = euler_matrix(torch.from_numpy(row[3:6])).numpy() @ turned
    np.testing.assert_allclose(turned, second, atol=1e-6)


@pytest.mark.parametrize("middle", [0.4, np.pi / 2, -np.pi / 2])
def test_euler_angles_match_the_model(middle):
    matrix = euler_matrix(torch.tensor([0.3, middle, -0.8], dtype=torch.float64))
    np.testing.assert_allclose(euler_angles(matrix.numpy()), matrix_euler(matrix).numpy(), atol=1e-9)


# ---------------------------------------------------------------------------------------- states


def test_the_state_is_the_tool_pose_and_gripper_opening():
    q = joints(1)[0]
    told = message(q, finger(0.25))
    told.header.stamp = to_stamp(1_500_000_000)
    stamp, state = reader().read(told)
    place, rotation = kinematics().forward(q)
    assert stamp == 1.5 and state.shape == (7,)
    np.testing.assert_allclose(state[:3], place)
    np.testing.assert_allclose(euler_matrix(torch.from_numpy(state[3:6])).numpy(), rotation, atol=1e-9)
    assert state[6] == pytest.approx(0.25)


def test_the_gripper_state_is_a_share_of_its_range():
    q = joints(1)[0]
    for zero, expected in (("lower", [0.0, 0.7, 1.0]), ("upper", [1.0, 0.3, 0.0])):
        read = reader(action_space=POSES | {"gripper_zero": zero})
        found = [read.read(message(q, finger(share)))[1][6] for share in (-0.2, 0.7, 1.2)]
        np.testing.assert_allclose(found, expected, atol=1e-9)


def test_a_robot_without_gripper_has_gripper_state_zero():
    assert reader(gripper=[]).read(message(joints(1)[0], 0.3))[1][6] == 0.0


def test_unreadable_joint_states_are_refused():
    q, read = joints(1)[0], reader()
    with pytest.raises(InputError, match="joint_states: expected the joints .*joint1.*found .*'other'"):
        read.read(JointState(name=["other"], position=[0.0]))
    with pytest.raises(InputError, match="joint_states: expected 9 positions, found 0"):
        read.read(JointState(name=message(q).name))
    with pytest.raises(InputError, match="joint_states: expected finite values, found NaN or Inf"):
        read.read(message(q, np.nan))


@pytest.mark.parametrize("limit, found", [('lower="0.5" upper="0.5"', "0.5 and 0.5"), (None, "-inf and inf")])
def test_a_gripper_without_a_range_is_refused(limit, found):
    kind = "revolute" if limit else "continuous"
    finger_joint = f'<joint name="f" type="{kind}"><parent link="world"/><child link="f"/>'
    finger_joint += f"<limit {limit} velocity='1' effort='1'/></joint>" if limit else "</joint>"
    urdf = sim_arm.scene().urdf.replace("</robot>", f'<link name="f"/>{finger_joint}</robot>')
    with pytest.raises(InputError, match=f"gripper joint f: expected two finite limits, found {found}"):
        ToolPoseReader(robot(gripper=["f"]), urdf)
    with pytest.raises(InputError, match="expected the gripper joint g, found none"):
        ToolPoseReader(robot(gripper=["g"]), urdf)


def test_joint_proprioception_uses_the_joint_reader():
    assert isinstance(make_reader(ProprioceptionConfig(), sim_arm.robot(), ""), ProprioceptionReader)


def test_angles_are_interpolated_the_shorter_way_around():
    states = StateHistory(5.0, ProprioceptionConfig(**STATE).angles)
    states.add(1.0, np.array([0.0, 0.0, 0.0, 3.1, 0.2, -3.1, 0.0]))
    states.add(2.0, np.array([4.0, 0.0, 0.0, -3.1, 0.4, 3.1, 1.0]))
    found = states.at(1.25)
    assert abs(found[3]) > 3.1 and abs(found[5]) > 3.1
    np.testing.assert_allclose(found[[0, 4, 6]], [1.0, 0.25, 0.25])
    np.testing.assert_allclose(np.cos(found[3:6:2] - [3.1 + 0.25 * 0.0831853, -3.1 - 0.25 * 0.0831853]), 1.0)


# ---------------------------------------------------------------------------------------- who refuses what


def test_the_action_space_is_read_from_the_robot_file(tmp_path):
    import yaml

    def load(space):
        file = tmp_path / "arm.yaml"
        file.write_text(yaml.safe_dump(robot().model_dump(mode="json") | {"action_space": space}))
        return load_robot(file).action_space

    assert load(POSES) == robot().action_space and load(POSES).gripper_zero == "lower"
    for wrong, words in (
        (POSES | {"max_rotation": 0.0}, "action_space.pose_delta.max_rotation: expected greater than 0"),
        (POSES | {"max_speed": 0.2}, "action_space.pose_delta.max_speed: expected no such field"),
        ({"type": "pose_delta", "max_rotation": 0.1}, "max_translation: expected a value, found none"),
        ({"type": "joints"}, "action_space"),
    ):
        with pytest.raises(InputError, match=words):
            load(wrong)


def test_action_spaces_refuse_robots_with_another_action_space():
    planar = "robot openarm: expected the action space pose_delta, found planar_velocity"
    posed = "robot openarm: expected the action space planar_velocity, found pose_delta"
    assert isinstance(make_space(sim_arm.robot(), kinematics(), 0.1), PlanarVelocity)
    for make in (PlanarVelocity, lambda r, *_: require_planar_space(r)):
        with pytest.raises(InputError, match=posed):
            make(robot(), kinematics(), 0.1)
    with pytest.raises(InputError, match=planar):
        PoseDelta(sim_arm.robot(), kinematics(), 0.1)
    with pytest.raises(InputError, match=planar):
        make_reader(ProprioceptionConfig(**STATE), sim_arm.robot(), sim_arm.scene().urdf)


@pytest.fixture
def file(tmp_path):
    import yaml

    path = tmp_path / "posed.yaml"
    path.write_text(yaml.safe_dump(robot().model_dump(mode="json")))
    return path


def test_functions_for_velocity_models_refuse_others(file, tmp_path):
    from jepa_ros.collecting.simulated import collect_simulated
    from jepa_ros.sim.cell import ArmCell
    from jepa_ros.sim.tasks import make_goal_set

    bad = "robot openarm: expected the action space planar_velocity or tool_velocity, found pose_delta"
    with pytest.raises(InputError, match=bad):
        ArmCell(sim_arm.scene(), robot())
    with pytest.raises(InputError, match="task 'reach': needs the action space planar_velocity, found pose_delta"):
        make_goal_set(str(file), 1, 0)
    with pytest.raises(InputError, match=bad):
        collect_simulated(out=tmp_path / "bag", episodes=1, seed=0, robot=str(file))
    assert not (tmp_path / "bag").exists()


def test_models_require_a_robot_with_their_action_space():
    posed = small_models.config(action=MOVE, proprioception=STATE)
    check_robot(posed, robot())
    check_robot(posed, robot(joints=sim_arm.robot().joints[::-1]))  # the state names no joints
    with pytest.raises(InputError) as refusal:
        check_robot(posed, sim_arm.robot())
    expected = "expected a robot with action space pose_delta, found planar_velocity on openarm"
    assert str(refusal.value) == f"model tiny: {expected}"
    with pytest.raises(InputError, match="expected a robot with action space planar_velocity, found pose_delta"):
        check_robot(small_models.config(sim_arm.robot().joints), robot())


def test_plans_are_evaluated_for_velocity_models_only():
    check_velocity_space(small_models.config())
    with pytest.raises(InputError) as refusal:
        check_velocity_space(small_models.config(action=MOVE, proprioception=STATE))
    expected = "plans are evaluated in action spaces planar_velocity and tool_velocity only, found pose_delta"
    assert str(refusal.value) == f"model tiny: {expected}"
