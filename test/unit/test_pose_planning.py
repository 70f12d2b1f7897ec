"""Plans of a model of poses: the tool moves in space, held as at home, and the gate would report what was imagined."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers import sim_arm, small_models
from helpers.plan_follower import Followed
from helpers.turned_camera import about_z
from jepa_ros.errors import InputError
from jepa_ros.planning.committed_reference import CommittedReference
from jepa_ros.planning.goal import Goal, GoalMaker, Objective
from jepa_ros.planning.guardrails import Guardrails
from jepa_ros.planning.receding_horizon import NoPlan, PlanningSettings, PlanStep, RecedingHorizonController
from jepa_ros.planning.rollout_problem import RolloutProblem, Situation
from jepa_ros.robot.config import RobotConfig
from jepa_ros.robot.motion.action_space import PoseDelta, ToolState
from jepa_ros.world_model.checkpoint import Checkpoint
from jepa_ros.world_model.protocol import Context, PredictiveModel
from jepa_ros.world_model.vjepa2_ac.model import STATE_FIELDS, move

TICK, REACH = 0.25, 0.05
HEIGHT = sim_arm.robot().action_space.height
LOW, HIGH = (0.05, -0.45, HEIGHT - 0.06), (0.35, -0.20, HEIGHT + 0.14)
SPACE = {"type": "pose_delta", "max_translation": REACH, "max_rotation": 0.2, "max_acceleration": 0.8}
SPACE |= {"workspace": (LOW, HIGH)}
STATE = {"kind": "tool_pose", "gripper": STATE_FIELDS, "mean": (0.0,) * 7, "std": (1.0,) * 7}
PLACE = np.array([0.15, -0.35, HEIGHT])
T0 = 1_700_000_000.0
RNG = np.random.default_rng(5)


def robot(rotation=None, **changes):
    values = sim_arm.robot().model_dump() | {"action_space": SPACE | changes}
    return RobotConfig.model_validate(values | {"camera": values["camera"] | {"rotation_to_base": rotation}})


@cache
def space(degrees=0.0):
    return PoseDelta(robot(about_z(degrees) if degrees else None), sim_arm.space().kinematics, TICK)


class Poses(PredictiveModel):
    """A world whose latent is the tool's place over SCALE, and whose poses actions move."""

    latent_shape, history = (3,), 2

    def predict(self, latents, states, actions):
        return latents + actions[..., :3] / small_models.SCALE, move(states, actions)


def knowing():
    changes = {"action": {"name": "pose_delta", "dimension": 7}, "proprioception": STATE, "control_rate": 1 / TICK}
    config = small_models.config(latent=3, block=1, **changes)
    return Checkpoint(config, Poses(), None, "0" * 16, Path("nowhere"))


def latent_of(place):
    return torch.as_tensor(np.asarray(place) / small_models.SCALE, dtype=torch.float32)


def state_of(q, degrees=0.0):
    finger = 0.0
    return ToolState(robot(about_z(degrees) if degrees else None), sim_arm.scene().urdf).at(np.append(q, finger))


def wild(count, ticks):
    return space().constrain(PLACE, np.zeros(3), RNG.uniform(-1.5, 1.5, (count, ticks, 3)))


def test_random_knots_are_limited_in_speed_acceleration_and_box():
    knots, x = wild(300, 20), np.broadcast_to(PLACE, (300, 3)).copy()
    assert np.linalg.norm(knots, axis=-1).max() <= 1 + 1e-9
    changes = np.diff(knots, axis=1, prepend=0.0)
    assert np.abs(changes).max() <= 0.8 * TICK / (REACH / TICK) + 1e-9
    before = np.zeros((300, 3))
    for knot in np.moveaxis(knots, 1, 0):
        x += 0.5 * REACH * (before + knot)
        before = knot
        assert (x >= np.array(LOW) - 0.01).all() and (x <= np.array(HIGH) + 0.01).all()


def test_the_arm_follows_the_tool_path_at_home_orientation_and_comes_to_rest():
    made, q = space(), space().inverse_kinematics(PLACE)
    at_home = made.kinematics.forward(made.posture)[1]
    for knots in wild(5, 8):
        zero = np.zeros(7)
        trajectory, path = made.to_trajectory(q, zero, zero, knots), made.make_path(q, zero, knots)
        times = np.linspace(0.0, path.duration, 60)
        for t, place in zip(times, path.sample(times)[0], strict=True):
            found, turned = made.kinematics.forward(trajectory.sample(t)[0])
            np.testing.assert_allclose(found, place, atol=1e-3)
            assert np.degrees(np.arccos(np.clip((np.trace(turned @ at_home.T) - 1) / 2, -1, 1))) < 12.0
        assert not trajectory.velocities[-1].any() and not trajectory.accelerations[-1].any()


@pytest.mark.parametrize("degrees", [0.0, 25.0])
def test_rollout_actions_equal_those_reported_by_the_gate(degrees):
    made, q = space(degrees), space().inverse_kinematics(PLACE)
    reference = CommittedReference()
    reference.hold(T0 - 10.0, q, made.kinematics.joints, made.tool_coordinates(q))
    context = Context(latent_of([PLACE, PLACE])[None], torch.zeros(1, 2, 7), torch.zeros(1, 1, 7))
    situation = Situation(context, lambda t: reference.tool_at(T0 + t), 0.0)
    goal = Goal((GoalMaker(knowing(), made).latent(latent_of(PLACE)),))
    problem = RolloutProblem(knowing(), made, situation, goal, Objective(), 6)
    knots = problem.repair(RNG.uniform(-1, 1, (1, problem.ticks, 3)))
    imagined = problem.predict(knots)[1][0].numpy()
    trajectory = made.to_trajectory(q, np.zeros(7), np.zeros(7), knots[0])
    reported = [made.executed(trajectory.sample(k * TICK)[0], trajectory.sample((k + 1) * TICK)[0]) for k in range(6)]
    np.testing.assert_allclose(imagined[:, :3], np.array(reported)[:, :3], atol=2e-3)
    np.testing.assert_allclose(imagined[:, 3:], 0.0)
    assert np.abs(np.array(reported)[:, 3:6]).max() < 0.08 and np.abs(imagined[:, :3]).max() > 0.01
    np.testing.assert_allclose(made.to_base_axes(made.to_model_axes(knots)), knots, atol=1e-12)


class Follower(Followed):
    """Frames at 8 Hz and joint states reach the controller at once."""

    def __init__(self, guardrails=None):
        settings = PlanningSettings(budget=np.inf, horizon=3, plan_ticks=4)
        super().__init__(
            RecedingHorizonController(knowing(), space(), settings, guardrails), space().inverse_kinematics(PLACE), T0
        )

    def run(self, seconds):
        for _ in range(round(seconds / 0.125)):
            self.now += 0.125
            q = self.reference(self.now)[0]
            self.controller.add_state(self.now, state_of(q), q)
            self.controller.add_latent(self.now, latent_of(self.tool()))
        return self


def test_a_goal_in_space_is_reached_by_plans_joined_without_a_jump():
    follower, goal = Follower().run(1.0), PLACE + [0.12, 0.08, 0.10]
    follower.controller.set_goal(latent_of(goal), tolerance=0.02)
    for _ in range(30):
        step = follower.step()  # asserts the join in position, velocity and acceleration
        assert step.motion.tool.shape == (3, 3)
        follower.run(0.25)
        if follower.controller.is_reached:
            break
    assert follower.controller.is_reached
    np.testing.assert_allclose(follower.tool(), goal, atol=0.02)


def test_a_horizon_that_ends_too_early_is_reported():
    follower = Follower().run(1.0)
    follower.controller.set_goal(latent_of(PLACE + [0.12, 0.08, 0.10]))
    waiting = follower.controller.plan_step(follower.now + 0.6)
    late = "a plan takes effect 0.75 s after its frame"
    assert waiting == NoPlan(f"{late}, but the horizon ends 0.75 s after it: increase the horizon")


def test_a_keep_out_box_is_avoided():
    between = PLACE + [0.10, 0.0, 0.04]
    box = {"name": "crate", "low": tuple(between - [0.03, 0.2, 0.03]), "high": tuple(between + [0.03, 0.2, 0.03])}
    made = RobotConfig.model_validate(robot().model_dump() | {"keep_out": [box], "self_collision": None})
    rails = Guardrails.from_robot(made, sim_arm.scene().urdf, space(), sim_arm.limits())
    assert rails.clearance(between) < 0 < rails.clearance(PLACE)
    follower = Follower(rails).run(1.0)
    follower.controller.set_goal(latent_of(between), tolerance=0.001)
    for _ in range(12):
        step = follower.controller.plan_step(follower.now)
        if isinstance(step, PlanStep):
            follower.plans.append(step)
        follower.run(0.25)
        assert rails.clearance(follower.tool()) > -1e-3
    with pytest.raises(InputError, match="is forbidden"):
        GoalMaker(knowing(), space(), guardrails=rails).tool(between)


def test_any_position_in_the_workspace_box_can_be_a_goal():
    maker = GoalMaker(knowing(), space())
    above = PLACE + [0.0, 0.0, 0.1]
    np.testing.assert_allclose(maker.tool(above).position.numpy(), above, atol=1e-6)
    with pytest.raises(InputError, match="outside the workspace"):
        maker.tool(PLACE + [0.0, 0.0, 0.3])


def test_settings_missing_for_planning_are_named():
    bare = PoseDelta(robot(max_acceleration=None, workspace=None), sim_arm.space().kinematics, TICK)
    assert bare.missing == ["max_acceleration", "workspace"] and not space().missing and not sim_arm.space().missing
    with pytest.raises(ValueError, match="workspace: expected low < high on every axis"):
        robot(workspace=(HIGH, LOW))
