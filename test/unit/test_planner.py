"""The planner's predicted motion is what executing its knots does, and its search goes to the goal."""

import numpy as np
import pytest
import torch

from helpers import sim_arm, small_models
from jepa_ros.errors import InputError
from jepa_ros.planning import SOLVERS
from jepa_ros.planning.committed_reference import CommittedReference
from jepa_ros.planning.goal import Goal, GoalMaker
from jepa_ros.planning.planner import WARM_START_ELITES, LatentPlanner
from jepa_ros.planning.rollout_problem import RolloutProblem, Situation
from jepa_ros.planning.solvers import make_solver
from jepa_ros.robot.motion.tool_path import ToolPath
from jepa_ros.world_model.protocol import Context

JOINTS = tuple(sim_arm.robot().joints)
XY = np.array([0.15, -0.30])
TICK, STEP = 0.1, 0.2 * 0.1
STAMP = 1_700_000_000.0
RNG = np.random.default_rng(4)


@pytest.fixture(scope="module")
def planner():
    return LatentPlanner(small_models.knowing(JOINTS), sim_arm.space(), budget=np.inf)


def imagine(planner, situation, goal=None):
    goal = seeing(planner, torch.zeros(2)) if goal is None else goal
    return RolloutProblem(planner.checkpoint, planner.space, situation, goal, planner.objective, planner.horizon)


def seeing(planner, latent):
    return Goal((GoalMaker(planner.checkpoint, planner.space).latent(latent),))


def moving(hand_over, begun=-0.17):
    """A situation with a plan under way, begun off the frames' grid, and the reference behind it."""
    space = sim_arm.space()
    q = space.inverse_kinematics(XY)
    knots = space.constrain(XY, np.zeros(2), np.repeat(RNG.uniform(-1, 1, (6, 2)), 2, axis=0))
    reference = CommittedReference()
    reference.hold(STAMP - 10, q, JOINTS, space.tool_coordinates(q))
    reference.add_plan(
        STAMP + begun, space.make_path(q, np.zeros(7), knots), space.to_trajectory(q, np.zeros(7), np.zeros(7), knots)
    )
    position = reference.tool_at(np.array([STAMP]))[0][0]
    latents = torch.stack([small_models.latent_of(position)] * 2)
    context = Context(latents[None], torch.zeros(1, 2, 14), torch.zeros(1, 1, 8))
    situation = Situation(context, lambda t: reference.tool_at(STAMP + t), hand_over)
    return situation, reference


def executed(space, reference, hand_over, knots, ticks):
    """(ticks, 2) what the gate would report a model tick if the knots took over at the hand-over."""
    ends = np.arange(ticks + 1) * TICK
    position, velocity = reference.tool_at(STAMP + np.append(np.minimum(ends, hand_over), hand_over))
    path = ToolPath(position[-1], np.vstack([velocity[-1], knots * space.max_speed]), TICK)
    after = path.sample(np.maximum(ends - hand_over, 0.0))[0]
    return np.diff(np.where((ends < hand_over)[:, None], position[:-1], after), axis=0) / STEP


@pytest.mark.parametrize("hand_over", [0.0, 0.1, 0.137, 0.2, 0.281])
def test_predicted_actions_equal_the_executed_knots(planner, hand_over):
    situation, reference = moving(hand_over)
    problem = imagine(planner, situation)
    knots = problem.repair(RNG.uniform(-1, 1, (3, problem.ticks, 2)))
    motion = problem.predict(knots)[1].reshape(3, 20, 2).numpy()
    for one, found in zip(knots, motion, strict=True):
        np.testing.assert_allclose(found, executed(planner.space, reference, hand_over, one, 20), atol=1e-4)


@pytest.mark.parametrize("hand_over", [0.2, 0.137])
def test_predicted_actions_equal_the_executed_joint_motion(planner, hand_over):
    """The same through inverse kinematics, the joint trajectory, and the gate's own reading of it. Between the ticks'
    ends of a plan its joints are a spline's, which cuts corners by a millimetre: exact over the whole, not each tick.
    """
    situation, reference = moving(hand_over)
    space = planner.space
    problem = imagine(planner, situation)
    knots = problem.repair(np.repeat(RNG.uniform(-1, 1, (1, 10, 2)), 2, axis=1)[:, : problem.ticks])
    q, qd, qdd = reference.joints_at(STAMP + hand_over)
    reference.add_plan(STAMP + hand_over, space.make_path(q, qd, knots[0]), space.to_trajectory(q, qd, qdd, knots[0]))
    joints = [reference.joints_at(STAMP + k * TICK)[0] for k in range(21)]
    done = [space.executed(a, b) for a, b in zip(joints[:-1], joints[1:], strict=True)]
    motion = problem.predict(knots)[1].reshape(20, 2).numpy()
    np.testing.assert_allclose(motion, done, atol=0.1)
    np.testing.assert_allclose(motion.sum(0) * STEP, np.sum(done, axis=0) * STEP, atol=0.002)


def test_the_knots_fill_the_horizon_after_the_hand_over(planner):
    for hand_over, ticks in ((0.0, 20), (0.137, 19), (0.2, 18), (5.0, 1)):
        assert imagine(planner, moving(hand_over)[0]).ticks == ticks


def test_a_plan_moves_to_the_goal(planner):
    planner.reset()
    situation, reference = moving(0.137)
    target = XY + [0.08, 0.03]
    motion = planner.plan(situation, seeing(planner, small_models.latent_of(target)))
    assert motion.distance > 1.0 and motion.predicted_distance < 0.03 * motion.distance
    moved = motion.actions.sum(0) * STEP
    np.testing.assert_allclose(reference.tool_at(np.array([STAMP]))[0][0] + moved, target, atol=0.01)
    assert motion.tool.shape == (5, 3) and motion.actions.shape == (20, 2)
    assert np.isfinite(motion.cost) and motion.iterations == planner.solver.iterations


def test_the_same_seed_gives_the_same_plan(planner):
    situation, _ = moving(0.137)
    plans = []
    for _ in range(2):
        planner.reset()
        plans.append(planner.plan(situation, seeing(planner, small_models.latent_of(XY + 0.05))).knots)
    np.testing.assert_array_equal(*plans)


def test_the_speed_factor_limits_the_speed_of_plans(planner):
    planner.reset()
    situation, _ = moving(0.137, begun=-60.0)
    slow = Situation(situation.context, situation.committed, 0.137, speed=0.3)
    knots = planner.plan(slow, seeing(planner, small_models.latent_of(XY + [0.15, 0.0]))).knots
    assert 0.2 < np.linalg.norm(knots, axis=1).max() <= 0.3 + 1e-9


def test_the_previous_plan_shifted_in_time_is_the_default(planner):
    planner.reset()
    situation, _ = moving(0.1)
    first = planner.plan(situation, seeing(planner, small_models.latent_of(XY + 0.05))).knots
    problem = imagine(planner, situation)
    seeds, _ = planner._make_seeds(problem, 4)
    np.testing.assert_allclose(seeds[0], problem.repair(np.vstack([first[4:], np.zeros((4, 2))])[None])[0])
    planner.reset()
    fewer, _ = planner._make_seeds(problem, 0)
    stop = fewer[0]
    assert not stop[-1].any() and len(fewer) == len(seeds) - WARM_START_ELITES


def test_a_non_finite_prediction_gives_the_default(planner):
    planner.reset()
    situation, _ = moving(0.1)
    motion = planner.plan(situation, seeing(planner, torch.full((2,), torch.nan)))
    assert motion.cost == np.inf and not motion.knots[-1].any(), "it stops"


@pytest.mark.parametrize("solver", SOLVERS)
def test_every_solver_plans_to_the_goal(solver):
    made = make_solver(solver, iterations=12)
    planner = LatentPlanner(small_models.knowing(JOINTS), sim_arm.space(), budget=np.inf, solver=made)
    target = XY + [0.06, 0.02]
    motion = planner.plan(moving(0.137)[0], seeing(planner, small_models.latent_of(target)))
    share = 0.5 if solver == "shooting" else 0.1
    assert motion.predicted_distance < share * motion.distance


def test_gradients_are_the_derivatives_of_the_costs(planner):
    situation, _ = moving(0.137)
    problem = imagine(planner, situation, seeing(planner, small_models.latent_of(XY + 0.05)))
    knots = problem.repair(RNG.uniform(-0.3, 0.3, (2, problem.ticks, 2)))
    with torch.inference_mode():
        costs, slope = problem.gradient(knots)
    np.testing.assert_allclose(costs, problem.cost(knots))
    for index in ((0, 3, 0), (1, 10, 1)):
        moved = knots.copy()
        moved[index] += 0.05
        expected = problem.cost(moved)[index[0]] - costs[index[0]]
        moved[index] -= 0.1
        expected = 0.5 * (expected + costs[index[0]] - problem.cost(moved)[index[0]]) / 0.05
        assert slope[index] == pytest.approx(expected, rel=0.02, abs=1e-3)


def test_a_seed_that_arrives_needs_no_search():
    planner = LatentPlanner(small_models.knowing(JOINTS), sim_arm.space(), budget=np.inf, policy="policy_first")
    situation, reference = moving(0.1, begun=-60.0)
    here = reference.tool_at(np.array([STAMP]))[0][0]
    there = planner.plan(situation, seeing(planner, small_models.latent_of(here + [0.08, 0.03])))
    assert there.samples > 100, "no seed ends there"
    here = planner.plan(situation, seeing(planner, small_models.latent_of(here)))
    assert here.samples < 30 and here.iterations == 1


def test_plans_that_are_not_allowed_are_not_handed_over(planner):
    planner.reset()
    situation, _ = moving(0.1)
    goal = seeing(planner, small_models.latent_of(XY + 0.05))
    asked = []

    def second(knots):
        asked.append(knots)
        return len(asked) == 2

    motion = planner.plan(situation, goal, allowed=second)
    np.testing.assert_array_equal(motion.knots, asked[1])
    assert np.isfinite(motion.cost)
    planner.reset()
    assert planner.plan(situation, goal, allowed=lambda knots: False).cost == np.inf


def test_forbidden_candidates_are_never_chosen(planner):
    class NotEast:
        def feasible(self, paths):
            return (paths[..., 0] <= paths[:, :1, 0] + 0.02).all(1)

        def price(self, paths):
            return np.zeros(len(paths))

    made = LatentPlanner(small_models.knowing(JOINTS), sim_arm.space(), budget=np.inf, guardrails=NotEast())
    situation, _ = moving(0.1, begun=-60.0)
    motion = made.plan(situation, seeing(made, small_models.latent_of(XY + [0.1, 0.05])))
    assert np.isfinite(motion.cost) and motion.actions[:, 0].sum() * STEP < 0.021
    assert motion.actions[:, 1].sum() * STEP > 0.03, "as near as may be"


def test_a_missing_policy_is_reported():
    checkpoint = small_models.knowing(JOINTS)
    with pytest.raises(InputError, match="policy: expected one of policy_seeded, .*, none, found 'always'"):
        LatentPlanner(checkpoint, sim_arm.space(), policy="always")
    with pytest.raises(InputError, match="needs a policy and a learned distance"):
        LatentPlanner(checkpoint, sim_arm.space(), policy="policy_only")
