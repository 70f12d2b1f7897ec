"""A camera that is turned against the training camera: actions in the model's axes, motion in the base frame."""

import math

import numpy as np
import pytest
import torch
import yaml

from helpers import evaluated_bag, sim_arm, small_models, turned_camera
from jepa_ros.errors import InputError
from jepa_ros.evaluation.closed_loop import ModelActor, Timing, run_trial
from jepa_ros.planning.receding_horizon import PlanningSettings, PlanStep, RecedingHorizonController
from jepa_ros.resources import config_path, list_models
from jepa_ros.robot.camera_rotation import yaw_rotation
from jepa_ros.robot.config import RobotConfig, load_robot
from jepa_ros.robot.gate.gate import Gate
from jepa_ros.robot.gate.types import GateSettings
from jepa_ros.robot.motion.action_space import PoseDelta, ToolState
from jepa_ros.sim.cell import ArmCell, make_action_space
from jepa_ros.sim.tasks.reach import Reach
from jepa_ros.world_model.checkpoint import load_checkpoint
from jepa_ros.world_model.vjepa2_ac.model import move

JOINTS = tuple(sim_arm.robot().joints)
XY, T0 = np.array([0.12, -0.30]), 1_700_000_000.0
POSES = {"type": "pose_delta", "max_translation": 0.05, "max_rotation": 0.2}


def controller(degrees, space, policy="none"):
    """With the model that knows its world, behind a camera turned by so many degrees."""
    checkpoint = turned_camera.seen_turned(small_models.knowing(JOINTS), degrees)
    return RecedingHorizonController(checkpoint, space, PlanningSettings(budget=np.inf, policy=policy))


def planned(degrees, space, goal, xy=XY):
    """The first plan, and the controller, of an arm that stands at xy and is to be at `goal` (2,) m."""
    made = controller(degrees, space)
    made.add_state(T0, np.concatenate([space.inverse_kinematics(xy), np.zeros(7)]))
    made.add_latent(T0, small_models.latent_of(xy))
    made.set_goal(small_models.latent_of(goal))
    step = made.plan_step(T0 + 0.02)
    assert isinstance(step, PlanStep), step
    return step, made


def way(space, step):
    """(2,) m from a plan's start to its end, of the tool."""
    return space.tool_coordinates(step.trajectory.positions[-1]) - space.tool_coordinates(step.trajectory.positions[0])


def angle(of, against):
    """Degrees from one way (2,) to another."""
    return math.degrees(math.atan2(against[0] * of[1] - against[1] * of[0], against @ of))


@pytest.mark.parametrize("degrees", [30.0, -100.0])
def test_a_plan_is_rotated_from_model_axes_into_the_base_frame(degrees):
    goal = XY + [0.06, 0.04]
    plain, _ = planned(0.0, sim_arm.space(), goal)
    step, _ = planned(degrees, turned_camera.space(degrees), goal)
    np.testing.assert_allclose(step.trajectory.positions, plain.trajectory.positions, atol=1e-4)
    wanted = plain.motion.actions @ turned_camera.in_plane(degrees)
    np.testing.assert_allclose(step.motion.actions, wanted, atol=1e-3)
    assert abs(angle(way(sim_arm.space(), step), goal - XY)) < 15.0  # of the few ticks that are handed over
    wrong, _ = planned(degrees, sim_arm.space(), goal)  # the same model, and a file that says nothing
    assert abs(angle(way(sim_arm.space(), wrong), way(sim_arm.space(), plain)) + degrees) < 15.0


@pytest.mark.parametrize("degrees", [30.0, 135.0])
def test_a_rotated_plan_stays_within_workspace_and_limits(degrees):
    space = turned_camera.space(degrees)
    corner = space.workspace[0]
    inwards = (space.workspace.mean(0) - corner) / np.linalg.norm(space.workspace.mean(0) - corner)
    step, _ = planned(degrees, space, corner - 0.2 * inwards, corner + 0.06 * inwards)
    tool = np.array([space.tool_coordinates(q) for q in step.trajectory.positions])
    assert np.linalg.norm(tool[-1] - tool[0]) > 0.01
    assert ((space.normals @ tool.T).T - space.offsets).max() < 1e-3
    assert np.hypot(*step.motion.actions.T).max() <= 1.0 + 1e-6
    gate = Gate(
        sim_arm.limits(), GateSettings(resume_after=0.0, latent_timeout=np.inf, planner_timeout=np.inf), space.executed
    )
    q = step.trajectory.positions[0]
    gate.update_joint_states(JOINTS, q, 0 * q, T0, T0)
    gate.tick(T0)
    assert gate.submit_plan(step.trajectory, step.start, T0, step.valid_until, 1, T0 + 0.05)


def test_executed_actions_equal_the_planned_ones_with_a_rotated_camera():
    space, degrees = turned_camera.space(30.0), 30.0
    step, made = planned(degrees, space, XY + [0.06, 0.04])
    ends = step.start + 0.1 * np.arange(9)
    q = [step.trajectory.sample(t - step.start)[0] for t in ends]
    executed = np.array([space.executed(*pair) for pair in zip(q[:-1], q[1:], strict=True)])
    promised = np.concatenate([made._committed_block(t).reshape(-1, 2) for t in ends[[0, 4]]])
    np.testing.assert_allclose(executed, promised, atol=2e-3)
    moved = np.diff([space.tool_coordinates(x) for x in q], axis=0) / (space.max_speed * space.period)
    np.testing.assert_allclose(space.to_base_axes(executed), moved, atol=1e-12)
    np.testing.assert_allclose(space.to_model_axes(space.to_base_axes(executed)), executed, atol=1e-12)
    np.testing.assert_allclose(moved, executed @ turned_camera.in_plane(degrees).T, atol=1e-12)


def test_knots_and_actions_are_rotated_exactly_once():
    from jepa_ros.planning.rollout_problem import RolloutProblem, Situation

    space = turned_camera.space(75.0)
    _, made = planned(75.0, space, XY + [0.05, 0.0])
    context = made.observations.context_at(T0)
    still = lambda t: (np.tile(XY, (len(t), 1)), np.zeros((len(t), 2)))  # noqa: E731
    problem = RolloutProblem(
        made.planner.checkpoint, space, Situation(context, still, 0.0), made.goal, made.planner.objective, 2
    )
    steady = np.tile([0.0, 0.4], (1, 8, 1))
    knots = problem.knots_of(steady)
    np.testing.assert_allclose(knots, steady @ turned_camera.in_plane(75.0).T, atol=1e-9)
    actions = problem.predict(knots)[1].reshape(-1, 2).numpy()
    np.testing.assert_allclose(actions[1:], steady[0, 1:], atol=1e-6)  # the first one starts from rest
    assert np.isfinite(problem.gradient(knots)[1]).all()


def test_without_a_rotation_plans_are_bit_identical():
    values = np.random.default_rng(0).normal(size=(5, 2))
    assert sim_arm.space().to_action is None
    assert sim_arm.space().to_model_axes(values) is values and sim_arm.space().to_base_axes(values) is values
    same, plain = turned_camera.space(0.0), sim_arm.space()
    plans = [planned(0.0, space, XY + [0.06, 0.04])[0] for space in (same, plain)]
    assert np.array_equal(plans[0].trajectory.positions, plans[1].trajectory.positions)
    assert np.array_equal(plans[0].motion.actions, plans[1].motion.actions)


def test_only_the_z_part_of_a_small_tilt_is_used_and_a_large_one_refused():
    from scipy.spatial.transform import Rotation

    def tilted(degrees):
        return tuple((Rotation.from_euler("x", degrees, degrees=True) * Rotation.from_quat(upright)).as_quat())

    upright = turned_camera.about_z(40.0)
    np.testing.assert_allclose(yaw_rotation(tilted(4.0)), turned_camera.in_plane(40.0), atol=1e-3)
    assert make_action_space(turned_camera.robot(tilted(4.0)), sim_arm.scene().urdf).to_action.shape == (2, 2)
    with pytest.raises(ValueError, match=r"expected a rotation about the base frame's z.*tilts z by 6.0°"):
        turned_camera.robot(tilted(6.0))
    poses = RobotConfig.model_validate(sim_arm.robot().model_dump() | {"action_space": POSES})
    assert turned_camera.robot(tilted(60.0), poses).camera.rotation_to_base is not None


@pytest.mark.parametrize("rotation", [(0.0, 0.0, 0.0, 0.5), (0.0, 0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0)])
def test_an_invalid_rotation_quaternion_is_refused_in_one_line(rotation, tmp_path):
    with pytest.raises(InputError, match="rotation_to_base: expected a .*found") as error:
        load_robot(_file(tmp_path, rotation))
    assert "\n" not in str(error.value) and "arm.yaml" in str(error.value)


def _file(folder, rotation):
    values = yaml.safe_load(config_path("robots", "openarm.yaml").read_text())
    values["camera"]["rotation_to_base"] = [float(x) for x in rotation]
    path = folder / "arm.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_poses_and_pose_deltas_are_rotated_consistently():
    from scipy.spatial.transform import Rotation

    rng = np.random.default_rng(0)
    turn = Rotation.from_rotvec([0.2, -0.4, 0.5])
    plain = RobotConfig.model_validate(sim_arm.robot().model_dump() | {"action_space": POSES})
    robot = turned_camera.robot(tuple(turn.as_quat()), plain)
    kinematics, urdf = sim_arm.space().kinematics, sim_arm.scene().urdf
    before = sim_arm.space().inverse_kinematics(XY)
    after = before + rng.uniform(-0.05, 0.05, 7)
    fingers = np.zeros(len(ToolState(robot, urdf).joints) - 7)
    states = [ToolState(robot, urdf).at(np.append(q, fingers)) for q in (before, after)]
    action = PoseDelta(robot, kinematics, 0.25).executed(before, after)
    moved = move(torch.tensor(states[0]), torch.tensor(action)).numpy()
    np.testing.assert_allclose(moved, states[1], atol=1e-9)
    motion = PoseDelta(plain, kinematics, 0.25).executed(before, after)
    np.testing.assert_allclose(turn.apply(action[:3]), motion[:3], atol=1e-12)
    back = turn * Rotation.from_euler("xyz", action[3:6]) * turn.inv()
    np.testing.assert_allclose(back.as_euler("xyz"), motion[3:6], atol=1e-9)


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    return evaluated_bag.write_bag(tmp_path_factory.mktemp("bag") / "play")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return evaluated_bag.write_model(tmp_path_factory.mktemp("model") / "model")


def test_a_recording_from_before_the_calibration_is_evaluated_in_the_axes_of_the_file(bag, model, tmp_path):
    def quality(robot, out):
        summary, lines = evaluated_bag.evaluate(bag, model, tmp_path / out, *evaluated_bag.QUICK, "--robot", robot)
        assert not lines
        return summary["bags"][0]["quality"]["executed_turned_deg"]

    assert quality("openarm", "plain") == 0.0
    assert quality(_file(tmp_path, turned_camera.about_z(40.0)), "turned") == pytest.approx(40.0, abs=2.0)


def test_recorded_actions_are_rotated_into_the_axes_of_the_robot_file(bag, model):
    from jepa_ros.bags.reader import open_bag
    from jepa_ros.evaluation.bag.reading.bag_reader import BagReader
    from jepa_ros.evaluation.bag.reading.recording import EvaluationSpec, TopicOptions, find_topics

    def actions(robot):
        checkpoint = load_checkpoint(str(model))
        with open_bag(bag) as source:
            topics = find_topics(source, checkpoint.config, robot, TopicOptions())
            recording = BagReader(source, topics, EvaluationSpec(checkpoint, robot)).read()
            return np.array(recording.actions.values).reshape(-1, 2)

    plain, turned = actions(sim_arm.robot()), actions(turned_camera.robot(turned_camera.about_z(40.0)))
    np.testing.assert_allclose(turned, plain @ turned_camera.in_plane(40.0), atol=0.03)


NAME = "openarm_reach"


@pytest.mark.slow
@pytest.mark.skipif(NAME not in list_models(), reason=f"config/models/{NAME} is not there")
def test_a_rotated_camera_needs_its_rotation_to_reach_goals():
    from jepa_ros.sim.scene import Scene

    scene, reached = Scene(), {}
    checkpoint = load_checkpoint(NAME)
    for degrees, known in ((30.0, True), (90.0, True), (90.0, False)):
        robot = turned_camera.robot(turned_camera.about_z(degrees)) if known else sim_arm.robot()
        cell, task = ArmCell(scene, robot), Reach(robot)
        seen = turned_camera.seen_turned(checkpoint, degrees)
        made = RecedingHorizonController(seen, cell.space, PlanningSettings(budget=math.inf))
        actor = ModelActor(cell, seen, made, Timing())
        for goal in task.sample_goals(cell, 2, 11):
            actor.start(goal)
            trial = run_trial(cell, task, goal, actor, Timing(timeout=6.0), executed=actor.add_executed)
            reached.setdefault((degrees, known), []).append(trial.reached)
    assert reached == {(30.0, True): [True, True], (90.0, True): [True, True], (90.0, False): [False, False]}
