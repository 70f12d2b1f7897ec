"""Planning with continuous joints: an angle and the same angle a turn further are the same place of the joint."""

import math
from functools import cache

import numpy as np
import pytest
import torch

from helpers import small_models
from helpers.vendor_arms import INERTIA, published
from jepa_ros.planning.goal import Goal, GoalMaker, Outcome
from jepa_ros.planning.guardrails import Guardrails
from jepa_ros.planning.receding_horizon import PlanningSettings, PlanStep, RecedingHorizonController
from jepa_ros.robot.config import load_robot
from jepa_ros.robot.motion.action_space import make_space
from jepa_ros.robot.motion.kinematics import Kinematics
from jepa_ros.robot.motion.limits import JointLimits
from jepa_ros.world_model.history import ObservationHistory

TURN = 2 * math.pi
ROBOT = load_robot("kinova_gen3")
HOME = np.array([ROBOT.home[joint] for joint in ROBOT.joints])
MASK = np.array([True, False, True, False, True, False, True])
T0 = 1_700_000_000.0
PERIOD = 0.1


@cache
def space():
    urdf = published("kinova_gen3")
    return make_space(ROBOT, Kinematics(urdf, ROBOT.joints, ROBOT.tool_frame, ROBOT.base_frame), PERIOD)


def turned(q, *turns):
    """Return joint positions with the continuous joints moved by whole turns."""
    moved = np.array(q, dtype=float)
    moved[MASK] += TURN * np.array(turns)
    return moved


@cache
def roll_arm():
    """A made-up arm of a continuous base joint, two links, and a continuous roll of the tool."""
    rows = [("pan", "continuous", "0 0 0.2", "0 0 1"), ("lift", "revolute", "0.05 0 0", "0 1 0")]
    rows += [("elbow", "revolute", "0.3 0 0", "0 1 0"), ("roll", "continuous", "0.3 0 0", "1 0 0")]
    text = f'<link name="base">{INERTIA}</link>'
    for (name, kind, xyz, axis), parent in zip(rows, ("base", "pan_link", "lift_link", "elbow_link"), strict=True):
        limit = '<limit lower="-2.5" upper="2.5" effort="1" velocity="1"/>' if kind == "revolute" else ""
        text += f'<link name="{name}_link">{INERTIA}</link><joint name="{name}" type="{kind}"><parent link="{parent}"/>'
        text += f'<child link="{name}_link"/><origin xyz="{xyz}"/><axis xyz="{axis}"/>{limit}</joint>'
    return Kinematics(f'<robot name="roll">{text}</robot>', [row[0] for row in rows], "roll_link", "base")


# -- inverse kinematics ------------------------------------------------------------------------------------------------


def test_the_kinematics_know_which_joints_are_continuous_and_give_them_no_limits():
    kinematics = space().kinematics
    np.testing.assert_array_equal(kinematics.continuous, MASK)
    np.testing.assert_array_equal(np.isinf(kinematics.upper), MASK)
    np.testing.assert_array_equal(np.isinf(kinematics.lower), MASK)
    assert kinematics.find_continuous(["joint_7", "joint_2", "nothing"]).tolist() == [True, False, False]


@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_a_reach_of_a_centimetre_across_half_a_turn_moves_no_joint_far(side):
    """Joint 3 is at half a turn at home: its driver reports it on either side."""
    start = turned(HOME, 0, -1 if side < 0 else 0, 0, 0)
    here = space().tool_coordinates(start)
    q = space().inverse_kinematics(here + [0.01, 0.0], start)
    np.testing.assert_allclose(space().tool_coordinates(q), here + [0.01, 0.0], atol=2e-3)
    assert np.abs(q - start).max() < 0.1


@pytest.mark.parametrize("pan", [math.pi - 0.01, -math.pi + 0.01, 3 * math.pi - 0.01, 41.0])
@pytest.mark.parametrize("step", [-0.01, 0.01])
def test_a_made_up_arm_reaches_across_half_a_turn_by_a_small_angle(pan, step):
    arm = roll_arm()
    start = np.array([pan, -0.6, 1.2, math.pi - 0.002])
    posture = np.array([pan + 0.02 - TURN * round(pan / TURN), -0.6, 1.2, -math.pi + 0.002])
    place, rotation = arm.forward(start)
    sideways = step * np.array([-math.sin(pan), math.cos(pan), 0.0])
    q, error = arm.inverse(place + sideways, rotation, start, posture, iterations=200)
    assert error < 2e-3 and np.abs(q - start).max() < 0.1


@pytest.mark.parametrize("turns", [(1, 0, -2, 0), (-7, 3, 0, 20)])
def test_inverse_kinematics_are_the_same_on_every_turn(turns):
    start, xy = HOME + 0.05, space().tool_coordinates(HOME) + [0.03, -0.04]
    there = space().inverse_kinematics(xy, start)
    np.testing.assert_allclose(space().inverse_kinematics(xy, turned(start, *turns)), turned(there, *turns), atol=1e-6)


# -- plans -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("turns", [(0, -1, 0, 0), (1, 0, -1, 2)])
def test_a_plan_starts_at_the_measured_angle_and_is_the_same_modulo_a_turn(turns):
    knots, still = np.array([[0.5, 0.0]] * 5), np.zeros(7)
    plan = space().to_trajectory(HOME, still, still, knots)
    other = space().to_trajectory(turned(HOME, *turns), still, still, knots)
    np.testing.assert_array_equal(other.positions[0], turned(HOME, *turns))
    np.testing.assert_array_equal(other.times, plan.times)
    np.testing.assert_allclose(other.positions, [turned(q, *turns) for q in plan.positions], atol=1e-6)
    assert np.ptp(other.positions, axis=0).max() < 0.5


def test_joints_away_from_home_return_the_short_way():
    start = turned(HOME, 0, -1, 0, 0)
    start[2] += 0.2
    plan = space().to_trajectory(start, np.zeros(7), np.zeros(7), np.zeros((1, 2)))
    assert plan.duration < 3.0 and np.abs(plan.positions - turned(HOME, 0, -1, 0, 0)).max() < 0.5


def test_a_plan_has_no_jump_where_a_joint_is_half_a_turn_away_from_home():
    start = HOME.copy()
    start[2] += math.pi - 0.002
    plan = space().to_trajectory(start, np.zeros(7), np.zeros(7), np.array([[0.3, 0.3]] * 10))
    assert np.abs(np.diff(plan.positions, axis=0)).max() < 0.3


def controller(q):
    """A controller whose goal is 10 cm away, the joints reported as q."""
    names, here = tuple(ROBOT.joints), space().tool_coordinates(HOME)
    urdf = published("kinova_gen3")
    rails = Guardrails.from_robot(ROBOT, urdf, space(), JointLimits.from_robot(ROBOT, urdf))
    made = RecedingHorizonController(small_models.knowing(names), space(), PlanningSettings(budget=np.inf), rails)
    for k in range(20):
        made.add_state(T0 + 0.05 * k, np.concatenate([q, np.zeros(7)]))
        made.add_latent(T0 + 0.05 * k, small_models.latent_of(here))
    made.set_goal(small_models.latent_of(here + [0.1, 0.0]))
    return made


def test_the_controller_plans_the_same_from_every_turn():
    steps = [controller(q).plan_step(T0 + 1.0) for q in (HOME, turned(HOME, 3, -1, 0, -2))]
    assert all(isinstance(step, PlanStep) for step in steps), steps
    np.testing.assert_array_equal(steps[1].trajectory.positions[0], turned(HOME, 3, -1, 0, -2))
    moved = [step.trajectory.positions - step.trajectory.positions[0] for step in steps]
    np.testing.assert_allclose(moved[1], moved[0], atol=1e-5)
    assert np.abs(moved[0]).max() < 1.0


def test_a_joint_reported_on_another_turn_is_not_away_from_the_committed_reference():
    made = controller(HOME)
    assert isinstance(made.plan_step(T0 + 1.0), PlanStep)
    later = made.reference.end + 0.2
    rest = made.reference.joints_at(later)[0]
    made.add_state(later, np.concatenate([turned(rest, 0, -1, 1, 0), np.zeros(7)]))
    made.add_latent(later, small_models.latent_of(space().tool_coordinates(rest)))
    step = made.plan_step(later)
    assert isinstance(step, PlanStep), step
    np.testing.assert_allclose(step.trajectory.positions[0], rest, atol=1e-9)


def test_the_model_sees_the_same_states_on_every_turn():
    config = small_models.config(tuple(ROBOT.joints))
    contexts = []
    for turns in ((0, 0, 0, 0), (2, -1, 0, 5)):
        seen = ObservationHistory(config, (0, 2, 4, 6))
        for k in range(20):
            q = HOME + [0, 0, 0.01 * k, 0, 0, 0, 0]
            seen.states.add(T0 + 0.05 * k, np.concatenate([turned(q, *turns), np.zeros(7)]))
            seen.latents.add(T0 + 0.05 * k, torch.zeros(config.latent_shape))
        contexts.append(seen.context_at(T0 + 0.95).states)
    np.testing.assert_allclose(contexts[1], contexts[0], atol=1e-5)
    assert np.abs(np.diff(contexts[0][0], axis=0)).max() < 0.3  # without a jump where joint 3 passes half a turn


# -- goals -------------------------------------------------------------------------------------------------------------


def posture_term(positions, names=("joint_2", "joint_3")):
    return GoalMaker(small_models.knowing(tuple(ROBOT.joints)), space()).posture(names, np.array(positions))


def outcome(q):
    states = torch.zeros(1, 1, 14)
    states[0, 0, :7] = torch.tensor(q, dtype=torch.float32)
    return Outcome(torch.zeros(1, 1, 2), states, torch.zeros(1, 1, 2))


def test_the_distance_to_a_posture_is_the_short_way_round_for_continuous_joints_only():
    near = turned(HOME, 4, -1, 0, 0)
    assert float(posture_term([HOME[1], 3.14]).distance(outcome(near))[0, 0]) == pytest.approx(0.0, abs=1e-5)
    assert bool(Goal((posture_term([HOME[1], -3.14]),)).within(outcome(near))[0, 0])
    far = near + [0, TURN, 0, 0, 0, 0, 0]
    assert float(posture_term([HOME[1], 3.14]).distance(outcome(far))[0, 0]) == pytest.approx(TURN / math.sqrt(2), 1e-4)
