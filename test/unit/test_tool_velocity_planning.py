"""Plans and plays of a tool that moves in space and turns: the search, goals, the task, collecting, teleoperation."""

from pathlib import Path

import numpy as np
import pytest
import torch

from helpers import sim_arm, small_models
from helpers.plan_follower import Followed
from jepa_ros.collecting.live_report import share_covered
from jepa_ros.collecting.plan_driver import (
    TELEOP_PLANS,
    Approach,
    GamePad,
    PlanDriver,
    ScriptedMotion,
    TeleopMotion,
    choose_reset_position,
    restrict_workspace,
    sample_play_episode,
)
from jepa_ros.collecting.simulated import _follow
from jepa_ros.errors import InputError
from jepa_ros.evaluation.closed_loop import OracleActor, RandomActor, Timing, run_trial
from jepa_ros.planning.committed_reference import CommittedReference
from jepa_ros.planning.goal import Goal, GoalMaker, Objective, Outcome
from jepa_ros.planning.guardrails import Guardrails
from jepa_ros.planning.receding_horizon import PlanningSettings, RecedingHorizonController
from jepa_ros.planning.rollout_problem import RolloutProblem, Situation
from jepa_ros.robot.collision.clearance import WORKSPACE_TOLERANCE
from jepa_ros.robot.motion.trajectory import JointTrajectory
from jepa_ros.sim import tasks
from jepa_ros.sim.tasks.reach3d import Reach3d
from jepa_ros.world_model.checkpoint import Checkpoint
from jepa_ros.world_model.heads import Probe
from jepa_ros.world_model.protocol import Context, PredictiveModel

TICK, BLOCK, T0 = 0.1, 4, 1_700_000_000.0
RNG = np.random.default_rng(3)
SPACE = sim_arm.space_3d()
ACTION = {"name": "tool_velocity", "dimension": 4, "max_speed": 0.2, "max_yaw_speed": 0.6}


class Coordinates(PredictiveModel):
    """A world whose latent is the tool's coordinates over SCALE, and whose joints never move."""

    latent_shape, history = (4,), 2

    def predict(self, latents, states, actions):
        return latents + actions.unflatten(-1, (-1, 4)).sum(-2) * (0.2 * TICK / small_models.SCALE), states


def knowing():
    made = small_models.config(sim_arm.robot_3d().joints, latent=4, action=ACTION)
    return Checkpoint(made, Coordinates(), small_models.fresh(made)[1], "0" * 16, Path("nowhere"))


def latent_of(x):
    return torch.as_tensor(np.asarray(x) / small_models.SCALE, dtype=torch.float32)


def rails():
    return Guardrails.from_robot(sim_arm.robot_3d(), sim_arm.scene().urdf, SPACE, sim_arm.limits())


def problem_at(x, goal, q=None):
    q = SPACE.inverse_kinematics(x) if q is None else q
    reference = CommittedReference()
    reference.hold(T0 - 10.0, q, SPACE.kinematics.joints, x)
    context = Context(latent_of([x, x])[None], torch.zeros(1, 2, 14), torch.zeros(1, 1, 4 * BLOCK))
    situation = Situation(context, lambda t: reference.tool_at(T0 + t), 0.1)
    made = Goal((GoalMaker(knowing(), SPACE).latent(latent_of(goal)),))
    return RolloutProblem(knowing(), SPACE, situation, made, Objective(), 3)


# -- planning ----------------------------------------------------------------------------------------------------------


def test_rollout_actions_equal_those_reported_by_the_gate():
    x = SPACE.centre
    q = SPACE.inverse_kinematics(x)
    problem = problem_at(x, x, q)
    knots = problem.repair(RNG.uniform(-1, 1, (1, problem.ticks, 4)))
    imagined = problem.predict(knots)[1][0].numpy().reshape(-1, 4)
    trajectory = SPACE.to_trajectory(q, np.zeros(7), np.zeros(7), knots[0])
    times = TICK * np.arange(len(imagined) + 1) - 0.1
    places = [trajectory.sample(max(t, 0.0))[0] for t in times]
    reported = [SPACE.executed(a, b) for a, b in zip(places[:-1], places[1:], strict=True)]
    np.testing.assert_allclose(imagined, np.array(reported), atol=0.02)
    assert np.abs(imagined).max(0).min() > 0.1


def test_knots_of_actions_are_in_the_order_of_the_coordinates():
    problem = problem_at(SPACE.centre, SPACE.centre)
    steady = np.tile([0.1, -0.2, 0.3, -0.4], (2, 3 * BLOCK, 1))
    np.testing.assert_allclose(problem.knots_of(steady), np.tile([0.1, -0.2, 0.3, -0.4], (2, problem.ticks, 1)))
    assert problem.propose().shape[1:] == (problem.ticks, 4)


def test_a_reduced_speed_limits_moving_and_turning():
    problem = problem_at(SPACE.centre, SPACE.centre)
    slow = RolloutProblem(
        problem.checkpoint,
        SPACE,
        Situation(problem.situation.context, problem.situation.committed, 0.1, speed=0.3),
        problem.goal,
        Objective(),
        3,
    )
    knots = slow.repair(RNG.uniform(-2, 2, (50, slow.ticks, 4)))
    assert np.linalg.norm(knots[..., :3], axis=-1).max() <= 0.3 + 1e-9 and np.abs(knots[..., 3]).max() <= 0.3 + 1e-9


def test_the_controller_brings_the_tool_to_a_goal_image_in_space_and_turns_it():
    start, goal = SPACE.centre - [0.03, 0.05, 0.03, 0.1], SPACE.centre + [0.03, 0.05, 0.03, 0.1]
    settings = PlanningSettings(budget=np.inf, horizon=4)
    control = RecedingHorizonController(knowing(), SPACE, settings, rails())
    arm = Followed(control, SPACE.inverse_kinematics(start), T0)
    control.set_goal(latent_of(goal))
    for _ in range(60):
        q, qd, _ = arm.reference(arm.now)
        control.add_state(arm.now, np.concatenate([q, qd]), q)
        control.add_latent(arm.now, latent_of(arm.tool()))
        arm.now += 0.05
        arm.step()
        arm.now += 0.15
        if control.is_reached:
            break
    assert control.is_reached
    assert np.abs(arm.tool() - goal)[:3].max() < 0.02
    assert abs(arm.tool()[3] - goal[3]) / SPACE.metres_per_rad < 0.1


def test_plans_that_need_too_fast_joints_are_forbidden():
    q, rest = SPACE.inverse_kinematics(SPACE.centre), np.zeros(7)
    knots = SPACE.constrain(SPACE.centre, np.zeros(4), SPACE.sample_play(20, RNG))
    plan = SPACE.to_trajectory(q, rest, rest, knots)
    guardrails = rails()
    assert guardrails.check(plan) == ""
    hurried = JointTrajectory(plan.names, plan.times / 8, plan.positions, plan.velocities * 8, plan.accelerations * 64)
    assert "times its limit: the arm is nearly stretched" in guardrails.check(hurried)


def test_a_pose_goal_leaves_the_orientation_free():
    maker = GoalMaker(knowing(), SPACE, guardrails=rails())
    term = maker.tool(SPACE.centre[:3])
    tool = torch.tensor([[[*SPACE.centre[:3] + [0.03, 0.0, 0.04], 0.2]]], dtype=torch.float32)
    outcome = Outcome(torch.zeros(1, 1, 4), torch.zeros(1, 1, 14), tool)
    assert float(term.distance(outcome)[0, 0]) == pytest.approx(0.05, abs=1e-6)
    with pytest.raises(InputError, match="lies outside the workspace"):
        maker.tool(np.array([0.2, -0.3, 0.9]))
    probe = Probe("tool", torch.zeros(5, 3), 0.01, (4,))
    objective = Objective(uncertainty=1.0, tool_probe=probe)
    cost = objective(Goal((term,)), outcome, torch.zeros(1, 4, 4))
    assert bool(torch.isfinite(cost).all()) and float(cost[0]) > 1.0, "the probe reads a position that is not planned"


# -- the task ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def goals():
    return Reach3d(sim_arm.robot_3d()).sample_goals(sim_arm.cell_3d(), 30, 2)


def test_goals_are_in_the_box_far_from_their_starts_and_turned(goals):
    assert all(SPACE.is_inside(g.target) and len(g.target) == 4 for g in goals)
    ways = [np.linalg.norm((g.target - g.start)[:3]) for g in goals]
    assert min(ways) >= 0.06 and min(ways[::2]) >= 0.12
    assert np.ptp([g.target[3] / SPACE.metres_per_rad for g in goals]) > 0.8
    for before, after in zip(goals[:-1], goals[1:], strict=True):
        np.testing.assert_array_equal(before.target, after.start)


def test_a_tenth_of_a_radian_counts_as_much_as_a_centimetre(goals):
    task, goal = Reach3d(sim_arm.robot_3d()), goals[0]
    there, rotation = SPACE.pose(goal.target)

    def distance(offset, yaw):
        c, s = np.cos(yaw), np.sin(yaw)
        turn = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
        return task.measure_distance(lambda frame: (there + offset, turn @ rotation), goal)

    assert task.tolerance_m == 0.01 and task.hold_s == 1.0
    assert distance(0.0, 0.0) == pytest.approx(0.0, abs=1e-6)
    assert distance(0.0, -0.1) == pytest.approx(0.01, abs=1e-6)
    assert distance(np.array([0.0, 0.02, 0.0]), 0.1) == pytest.approx(0.02, abs=1e-6)


def test_the_oracle_reaches_goals_and_random_play_does_not(goals):
    cell, task = sim_arm.cell_3d(), Reach3d(sim_arm.robot_3d())
    for make, reaches in ((lambda: OracleActor(cell, task), True), (lambda: RandomActor(cell, 0), False)):
        actor = make()
        for goal in goals[:3]:
            actor.start(goal)
            assert run_trial(cell, task, goal, actor, Timing(timeout=6.0)).reached == reaches


def test_a_task_is_refused_for_a_robot_of_another_action_space():
    with pytest.raises(
        InputError, match="task 'reach': needs .* planar_velocity, found tool_velocity on openarm_3d; give"
    ):
        tasks.make_task("reach", sim_arm.robot_3d())
    with pytest.raises(InputError, match="task 'reach3d': needs .* give --task reach$"):
        tasks.make_task("reach3d", sim_arm.robot())
    assert isinstance(tasks.make_task("reach", sim_arm.robot_3d(), for_goals=False), tasks.Reach)
    assert [tasks.choose_task(r) for r in (sim_arm.robot(), sim_arm.robot_3d())] == ["reach", "reach3d"]


# -- collecting --------------------------------------------------------------------------------------------------------


def test_simulated_play_is_executed_as_recorded_and_keeps_clear(monkeypatch):
    cell, task, rng = sim_arm.cell_3d(), Reach3d(sim_arm.robot_3d()), np.random.default_rng(4)
    task.reset_for_play(cell, rng)
    begin = np.ceil(cell.scene.time / TICK + 0.5) * TICK
    for _ in cell.advance(begin - cell.scene.time):
        pass
    refused, real = [], cell.find_violation

    def refuse_first(trajectory):
        refused.append(real(trajectory) or ("" if refused else "too close"))
        return refused[-1]

    monkeypatch.setattr(cell, "find_violation", refuse_first)
    _follow(cell, begin, 30, rng, 1)
    assert refused[0] == "too close" and refused[-1] == "", "another motion is drawn"
    done = [(tick, SPACE.tool_coordinates(cell.scene.positions(cell.joints))) for tick in cell.advance(4.0)]
    actions, places = np.array([tick.values for tick, _ in done]), np.array([x for _, x in done])
    assert actions.shape[1] == 4 and np.abs(actions).max() <= 1.02 and np.abs(actions).max(0).min() > 0.2
    low, high = SPACE.bounds
    assert (places > low - 2 * WORKSPACE_TOLERANCE).all() and (places < high + 2 * WORKSPACE_TOLERANCE).all()


class Loop:
    """An arm that follows the plans of a PlanDriver exactly."""

    def __init__(self, space, x, **driver):
        self.driver, self.now, self.q, self.tool = PlanDriver(space, **driver), T0, space.inverse_kinematics(x), []

    def drive(self, motion, is_over):
        self.driver.begin_motion()
        for _ in range(600):
            start = None if motion.fully_planned else self.driver.next_start(self.now)
            if start is not None:
                self.driver.make_plan(self.now, start, motion, self.q)
            self.now += 0.02
            self.tool.append(self.driver.tool(self.now, self.q))
            if is_over():
                return
        raise AssertionError("not over within 12 s")


def test_live_play_approaches_its_start_and_stays_in_the_box():
    box = (0.14, 0.25, -0.35, -0.22, 0.47, 0.55)
    inside = sim_arm.cell_3d().space.__class__(restrict_workspace(sim_arm.robot_3d(), box), SPACE.kinematics, TICK)
    home = choose_reset_position(inside, None)
    begin, knots = sample_play_episode(inside, home, 40, 3, 1)
    assert inside.is_inside(begin) and knots.shape == (40, 4)
    loop, approach = Loop(inside, home), Approach(inside, begin)
    loop.drive(approach, lambda: approach.arrived(loop.driver.tool(loop.now, loop.q)))
    script = ScriptedMotion(knots)
    loop.drive(script, lambda: script.fully_planned and loop.driver.at_rest(loop.now))
    places = np.array(loop.tool)
    low, high = inside.bounds
    assert (places > low - WORKSPACE_TOLERANCE).all() and (places < high + WORKSPACE_TOLERANCE).all()
    assert np.ptp(places, axis=0).min() > 0.02
    assert 0.0 < share_covered(inside, places) < 1.0


@pytest.mark.parametrize(
    ("box", "said"),
    [
        ((0.3, 0.1, -0.3, -0.2), "expected xmin < xmax"),
        ((0.1, 0.3, -0.3, -0.2, float("nan"), 0.6), "expected xmin < xmax"),
        ((0.1, 0.3, -0.3, -0.2, 0.7, 0.9), "overlaps too little .* x 0.12 to 0.27, y -0.37 to -0.2, z 0.46 to 0.6 m"),
        ((0.1, 0.3, -0.3), "expected xmin,xmax,ymin,ymax or xmin"),
    ],
)
def test_invalid_boxes_and_reset_poses_are_refused(box, said):
    with pytest.raises(InputError, match=said):
        restrict_workspace(sim_arm.robot_3d(), box)
    with pytest.raises(InputError, match="reset .*: expected 3 numbers, x,y,z"):
        choose_reset_position(SPACE, (0.2, -0.3))
    with pytest.raises(InputError, match="expected a place inside the workspace or box .* z 0.46 to 0.6 m"):
        choose_reset_position(SPACE, (0.2, -0.3, 0.9))
    place = choose_reset_position(SPACE, (0.2, -0.3, 0.5))
    np.testing.assert_allclose(place, [0.2, -0.3, 0.5, 0.0])


def test_teleoperation_moves_and_turns_the_tool_and_stops_without_commands():
    steering, loop = TeleopMotion(SPACE), Loop(SPACE, SPACE.centre, **TELEOP_PLANS)
    steering.command((0.3, 0.0), 0.0, T0)
    assert "expected 4 finite velocities" in steering.problem
    begin = loop.now

    def command_for_a_second():
        if loop.now < begin + 1.0:
            steering.command((0.2, 0.0, 0.3, -0.5), 0.0, loop.now)
        return loop.now > begin + 2.0

    loop.drive(steering, command_for_a_second)
    moved = loop.tool[-1] - SPACE.centre
    assert moved[0] > 0.02 and abs(moved[1]) < 0.002 and moved[2] > 0.03 and moved[3] / SPACE.metres_per_rad < -0.2
    np.testing.assert_allclose(loop.tool[-1], loop.tool[-10], atol=1e-4)
    pad = GamePad((1, 0, 4, 3), 0, 1)
    assert pad.velocity([0.1, 0.2, 0.0, 0.3, 0.4], [1, 0]) == (0.2, 0.1, 0.4, 0.3)
    assert pad.velocity([0.1, 0.2, 0.0, 0.3, 0.4], [0, 0]) == (0.0,) * 4
