"""Planar velocity: requested knots become feasible, smooth joint motion, and are recovered from it."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from helpers import sim_arm
from jepa_ros.errors import InputError
from jepa_ros.robot.motion.action_space import PlanarVelocity

SEEDS = st.integers(0, 2**32 - 1)
BORDER = 0.01
"""m by which a path may leave the workspace where it turns and brakes at once; the polygon has that margin."""
STILL = np.zeros(7)


def wild_knots(rng, ticks, batch=()):
    """Requested knots: up to twice the maximum speed, in segments of 1 to 8 ticks."""
    hold = int(rng.integers(1, 9))
    return np.repeat(rng.uniform(-2, 2, (*batch, -(-ticks // hold), 2)), hold, axis=-2)[..., :ticks, :]


def positions(space, xy, start, knots):
    """(..., n, 2) m at the ends of the ticks."""
    all_knots = np.concatenate([np.broadcast_to(start, (*knots.shape[:-2], 1, 2)), knots], axis=-2)
    steps = 0.5 * (all_knots[..., 1:, :] + all_knots[..., :-1, :])
    return np.asarray(xy)[..., None, :] + np.cumsum(steps, axis=-2) * space.max_speed * space.period


def feasible(rng, ticks):
    """A place, joints there, and knots from rest there that can be followed."""
    space = sim_arm.space()
    q = space.inverse_kinematics(space.sample(rng))
    return q, space.constrain(space.tool_coordinates(q), np.zeros(2), wild_knots(rng, ticks))


@settings(max_examples=40, deadline=None)
@example(524445)  # turns along one border while it brakes before it, for long
@given(SEEDS)
def test_constrained_knots_respect_speed_acceleration_and_workspace_limits(seed):
    space, rng = sim_arm.space(), np.random.default_rng(seed)
    xy = space.sample(rng)
    knots = space.constrain(xy, np.zeros(2), wild_knots(rng, 60))
    assert np.linalg.norm(knots, axis=-1).max() <= 1 + 1e-9
    assert np.abs(np.diff(np.vstack([np.zeros(2), knots]), axis=0)).max() <= space.max_change + 1e-9
    outside = (positions(space, xy, np.zeros(2), knots) @ space.normals.T - space.offsets).max()
    assert outside <= BORDER


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_motion_towards_the_workspace_limit_stops_before_it(seed):
    space, rng = sim_arm.space(), np.random.default_rng(seed)
    xy = space.sample(rng)
    direction = rng.normal(size=2)
    knots = space.constrain(xy, np.zeros(2), np.tile(direction / np.linalg.norm(direction), (150, 1)))
    places = positions(space, xy, np.zeros(2), knots)
    assert (places @ space.normals.T - space.offsets).max() <= 1e-3, "it creeps out"
    reached = (places[-1] @ space.normals.T - space.offsets).max()
    assert reached > -0.01, "it stops well before a border that is free"


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_a_batch_of_plans_is_constrained_like_each_plan_alone(seed):
    space, rng = sim_arm.space(), np.random.default_rng(seed)
    xy, start, knots = space.sample(rng), rng.uniform(-0.3, 0.3, 2), wild_knots(rng, 20, (5,))
    together = space.constrain(xy, start, knots)
    for one, found in zip(knots, together, strict=True):
        np.testing.assert_allclose(space.constrain(xy, start, one), found, atol=1e-12)


def test_feasible_knots_are_not_changed():
    space = sim_arm.space()
    gentle = np.array([[0.2, 0.0], [0.4, 0.1], [0.4, 0.1], [0.2, 0.0], [0.0, 0.0]])
    np.testing.assert_allclose(space.constrain(space.workspace.mean(0), np.zeros(2), gentle), gentle, atol=1e-12)


def test_outside_the_workspace_only_inward_motion_remains():
    space = sim_arm.space()
    outward = space.normals[0]
    xy = space.workspace[:2].mean(0) + 0.02 * outward
    away = space.constrain(xy, np.zeros(2), np.tile(outward, (5, 1)))
    back = space.constrain(xy, np.zeros(2), np.tile(-outward, (5, 1)))
    assert (away @ outward).max() <= 1e-9
    assert (back @ outward)[-1] < -0.5


@settings(max_examples=12, deadline=None)
@given(SEEDS)
def test_a_new_trajectory_continues_the_replaced_motion_without_a_jump(seed):
    space, rng = sim_arm.space(), np.random.default_rng(seed)
    q, knots = feasible(rng, 12)
    state = space.to_trajectory(q, STILL, STILL, knots).sample(0.1 * rng.integers(1, 10))
    start, speed = space.tool_coordinates(state[0]), space.tool_knot(*state[:2])
    after = space.to_trajectory(*state, space.constrain(start, speed, wild_knots(rng, 10)))
    for given_, found in zip(state, after.sample(0.0), strict=True):
        np.testing.assert_allclose(found, given_, atol=1e-9)
    assert not after.velocities[-1].any() and not after.accelerations[-1].any()
    assert after.names == tuple(sim_arm.robot().joints)


@settings(max_examples=12, deadline=None)
@given(SEEDS)
def test_feasible_plans_respect_the_joint_limits(seed):
    limits, rng = sim_arm.limits(), np.random.default_rng(seed)
    q, knots = feasible(rng, 15)
    plan = sim_arm.space().to_trajectory(q, STILL, STILL, knots)
    q, qd, qdd = plan.sample(np.arange(0.0, plan.duration, 0.005))
    assert limits.excess(q).max() <= 0
    assert (np.abs(qd) <= limits.velocity).all()
    assert (np.abs(qdd) <= limits.acceleration).all()
    assert (np.abs(np.diff(qdd, axis=0)) <= limits.jerk * 0.005).all()


@settings(max_examples=12, deadline=None)
@given(SEEDS)
def test_executed_actions_match_the_knots(seed):
    space, rng = sim_arm.space(), np.random.default_rng(seed)
    q, knots = feasible(rng, 15)
    plan = space.to_trajectory(q, STILL, STILL, knots)
    at = plan.sample(np.arange(16) * space.period)[0]
    actions = np.array([space.executed(a, b) for a, b in zip(at[:-1], at[1:], strict=True)])
    all_knots = np.vstack([np.zeros(2), knots])
    np.testing.assert_allclose(actions, 0.5 * (all_knots[1:] + all_knots[:-1]), atol=0.02)


def test_joints_away_from_the_nominal_posture_return_to_it_slowly():
    space = sim_arm.space()
    q = space.inverse_kinematics(np.array([0.2, -0.3]))
    off = q + 0.2 * np.array([0, 0, 1, 0, -1, 0, 1.0])
    plan = space.to_trajectory(off, STILL, STILL, np.zeros((3, 2)))
    np.testing.assert_allclose(plan.positions[0], off, atol=1e-12)
    end = plan.positions[-1]
    np.testing.assert_allclose(end, space.inverse_kinematics(space.tool_coordinates(off)), atol=0.03)
    assert plan.duration > 0.5 and np.abs(plan.velocities).max() < 0.5, "it settles slowly"


def test_a_stop_takes_as_long_as_the_acceleration_requires():
    space = sim_arm.space()
    stopped = space.append_stop(np.array([[0.9, -0.3]]))
    assert len(stopped) == 1 + np.ceil(0.9 / space.max_change)
    assert not stopped[-1].any()
    assert np.abs(np.diff(stopped, axis=0)).max() <= space.max_change + 1e-9


@pytest.mark.parametrize(
    "polygon",
    [
        [(0, 0), (1, 0), (0.4, 0.4), (0, 1)],  # a dent
        [(0, 0), (0, 1), (1, 1), (1, 0)],  # clockwise
        [(0, 0), (1, 0), (1, 0), (0, 1)],  # a corner twice
        [(0, 0), (1, 0), (2, 0)],  # no area
    ],
)
def test_a_workspace_polygon_must_be_convex_and_counter_clockwise(polygon):
    config = sim_arm.robot().action_space.model_copy(update={"workspace": polygon})
    with pytest.raises(InputError, match="workspace: expected a convex counter-clockwise polygon"):
        PlanarVelocity(sim_arm.robot().model_copy(update={"action_space": config}), sim_arm.space().kinematics)
