"""The planner's imagination is what executing its knots does, and its search goes to the goal."""

import arm
import numpy as np
import pytest
import tiny
import torch

from jepa_ros.planning.planner import LatentPlanner, Situation, _Imagination
from jepa_ros.planning.promises import Promises
from jepa_ros.robot.planar_path import PlanarPath
from jepa_ros.world_model.protocol import Context

JOINTS = tuple(arm.robot().joints)
XY = np.array([0.15, -0.30])
TICK, STEP = 0.1, 0.2 * 0.1
STAMP = 1_700_000_000.0
RNG = np.random.default_rng(4)


@pytest.fixture(scope="module")
def planner():
    return LatentPlanner(tiny.knowing(JOINTS), arm.space(), budget=np.inf)


def moving(hand_over, begun=-0.17):
    """A situation with a plan under way, begun off the frames' grid, and the promises behind it."""
    space = arm.space()
    q = space.joints_at(XY)
    knots = space.constrain(XY, np.zeros(2), np.repeat(RNG.uniform(-1, 1, (6, 2)), 2, axis=0))
    promises = Promises()
    promises.hold(STAMP - 10, q, JOINTS, space.position(q))
    promises.add(
        STAMP + begun, space.path(q, np.zeros(7), knots), space.to_trajectory(q, np.zeros(7), np.zeros(7), knots)
    )
    position = promises.tool(np.array([STAMP]))[0][0]
    latents = torch.stack([tiny.latent_of(position)] * 2)
    context = Context(latents[None], torch.zeros(1, 2, 14), torch.zeros(1, 1, 8))
    situation = Situation(context, lambda t: promises.tool(STAMP + t), hand_over)
    return situation, promises


def executed(space, promises, hand_over, knots, ticks):
    """(ticks, 2) what the gate would report a model tick if the knots took over at the hand-over."""
    ends = np.arange(ticks + 1) * TICK
    position, velocity = promises.tool(STAMP + np.append(np.minimum(ends, hand_over), hand_over))
    path = PlanarPath(position[-1], np.vstack([velocity[-1], knots * space.max_speed]), TICK)
    after = path.sample(np.maximum(ends - hand_over, 0.0))[0]
    return np.diff(np.where((ends < hand_over)[:, None], position[:-1], after), axis=0) / STEP


@pytest.mark.parametrize("hand_over", [0.0, 0.1, 0.137, 0.2, 0.281])
def test_imagined_actions_are_what_executing_the_knots_does(planner, hand_over):
    situation, promises = moving(hand_over)
    imagination = _Imagination(planner, situation, torch.zeros(2))
    knots = imagination.repair(RNG.uniform(-1, 1, (3, imagination.ticks, 2)))
    imagined = imagination.actions(knots).reshape(3, 20, 2).numpy()
    for one, found in zip(knots, imagined, strict=True):
        np.testing.assert_allclose(found, executed(planner.space, promises, hand_over, one, 20), atol=1e-4)


@pytest.mark.parametrize("hand_over", [0.2, 0.137])
def test_imagined_actions_are_what_the_joints_do(planner, hand_over):
    """The same through inverse kinematics, the joint trajectory, and the gate's own reading of it. Between the ticks'
    ends of a plan its joints are a spline's, which cuts corners by a millimetre: exact over the whole, not each tick.
    """
    situation, promises = moving(hand_over)
    space = planner.space
    imagination = _Imagination(planner, situation, torch.zeros(2))
    knots = imagination.repair(np.repeat(RNG.uniform(-1, 1, (1, 10, 2)), 2, axis=1)[:, : imagination.ticks])
    q, qd, qdd = promises.joints(STAMP + hand_over)
    promises.add(STAMP + hand_over, space.path(q, qd, knots[0]), space.to_trajectory(q, qd, qdd, knots[0]))
    joints = [promises.joints(STAMP + k * TICK)[0] for k in range(21)]
    done = [space.executed(a, b) for a, b in zip(joints[:-1], joints[1:], strict=True)]
    imagined = imagination.actions(knots).reshape(20, 2).numpy()
    np.testing.assert_allclose(imagined, done, atol=0.1)
    np.testing.assert_allclose(imagined.sum(0) * STEP, np.sum(done, axis=0) * STEP, atol=0.002)


def test_knots_last_to_the_end_of_the_horizon(planner):
    for hand_over, ticks in ((0.0, 20), (0.137, 19), (0.2, 18), (5.0, 1)):
        assert _Imagination(planner, moving(hand_over)[0], torch.zeros(2)).ticks == ticks


def test_a_plan_goes_to_the_goal(planner):
    planner.reset()
    situation, promises = moving(0.137)
    target = XY + [0.08, 0.03]
    imagined = planner.plan(situation, tiny.latent_of(target))
    assert imagined.distance > 1.0 and imagined.predicted_distance < 0.03 * imagined.distance
    moved = imagined.actions.sum(0) * STEP
    np.testing.assert_allclose(promises.tool(np.array([STAMP]))[0][0] + moved, target, atol=0.01)
    assert imagined.joints.shape == (5, 7) and imagined.actions.shape == (20, 2)
    assert np.isfinite(imagined.cost) and imagined.iterations == 4


def test_the_same_seed_gives_the_same_plan(planner):
    situation, _ = moving(0.137)
    plans = []
    for _ in range(2):
        planner.reset()
        plans.append(planner.plan(situation, tiny.latent_of(XY + 0.05)).knots)
    np.testing.assert_array_equal(*plans)


def test_the_speed_factor_bounds_the_search(planner):
    planner.reset()
    situation, _ = moving(0.137, begun=-60.0)
    slow = Situation(situation.context, situation.committed, 0.137, speed=0.3)
    knots = planner.plan(slow, tiny.latent_of(XY + [0.15, 0.0])).knots
    assert 0.2 < np.linalg.norm(knots, axis=1).max() <= 0.3 + 1e-9


def test_the_last_plan_is_the_default_moved_on_in_time(planner):
    planner.reset()
    situation, _ = moving(0.1)
    first = planner.plan(situation, tiny.latent_of(XY + 0.05)).knots
    imagination = _Imagination(planner, situation, torch.zeros(2))
    seeds, _ = planner._seeds(imagination, 4)
    np.testing.assert_allclose(seeds[0], imagination.repair(np.vstack([first[4:], np.zeros((4, 2))])[None])[0])
    planner.reset()
    fewer, _ = planner._seeds(imagination, 0)
    stop = fewer[0]
    assert not stop[-1].any() and len(fewer) == len(seeds) - 1


def test_a_prediction_that_is_no_number_leaves_the_default(planner):
    planner.reset()
    situation, _ = moving(0.1)
    imagined = planner.plan(situation, torch.full((2,), torch.nan))
    assert imagined.cost == np.inf and not imagined.knots[-1].any(), "it stops"
