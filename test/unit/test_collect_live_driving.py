"""Driving an arm by plans from tick to tick: play as the seed says, a person's commands, and the options."""

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from helpers import sim_arm
from jepa_ros import cli
from jepa_ros.collecting.live import collect_live
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
from jepa_ros.commands import training
from jepa_ros.errors import InputError
from jepa_ros.sim.cell import ArmCell, make_action_space

BOX = (0.10, 0.28, -0.38, -0.20)


@pytest.fixture(scope="module")
def space():
    """The simulated arm's plane, cut down to BOX."""
    return make_action_space(restrict_workspace(sim_arm.robot(), BOX), sim_arm.scene().urdf)


class Loop:
    """The simulated arm behind its gate, driven as the live one is; time in s of the scene."""

    def __init__(self, space, xy, **driver):
        self.cell = ArmCell(sim_arm.scene(), sim_arm.robot())
        self.cell.reset(space.inverse_kinematics(xy))
        self.driver = PlanDriver(space, **driver)
        self.tool, self.executed, self.plans = [], [], []

    @property
    def now(self):
        return self.cell.scene.time

    @property
    def measured(self):
        return self.cell.scene.positions(self.cell.joints)

    def hand(self, plan):
        self.plans.append(plan)
        verdict = self.cell.gate.submit_plan(
            plan.trajectory, plan.start, plan.stamp, plan.valid_until, plan.plan_id, plan.stamp
        )
        assert verdict and not verdict.clipped, verdict.text
        return verdict

    def drive(self, motion, until, speed=1.0):
        """Until the condition holds; at most for 20 s."""
        self.driver.begin_motion()
        end = self.now + 20.0
        while not until() and self.now < end:
            if not motion.fully_planned and (start := self.driver.next_start(self.now)) is not None:
                self.hand(self.driver.make_plan(self.now, start, motion, self.measured, speed))
            self.advance()
        assert until()

    def advance(self, seconds=0.02):
        for done in self.cell.advance(seconds):
            self.executed.append(done)
        self.tool.append(self.driver.space.tool_coordinates(self.measured))


def outside(tool):
    low, high = np.array(BOX[::2]), np.array(BOX[1::2])
    return float(np.maximum(low - np.array(tool), np.array(tool) - high).max())


# -- the box -----------------------------------------------------------------------------------------------------------


def test_a_box_restricts_the_workspace(space):
    whole = sim_arm.space()
    rng = np.random.default_rng(0)
    for xy in rng.uniform((0.0, -0.5), (0.4, 0.0), (500, 2)):
        assert space.is_inside(xy) == (whole.is_inside(xy) and outside(xy) <= 0), xy
    assert restrict_workspace(sim_arm.robot(), None) is sim_arm.robot()


@pytest.mark.parametrize(
    ("box", "said"),
    [
        ((0.3, 0.1, -0.3, -0.2), "expected xmin < xmax"),
        ((0.1, float("nan"), -0.3, -0.2), "expected xmin < xmax"),
        ((1.0, 2.0, -0.3, -0.2), "overlaps too little with the robot's workspace, which is within x 0.02 to 0.335"),
        ((0.1, 0.101, -0.3, -0.2), "overlaps too little"),
    ],
)
def test_a_box_with_too_little_overlap_with_the_workspace_is_refused(box, said):
    with pytest.raises(InputError, match=said):
        restrict_workspace(sim_arm.robot(), box)


# -- play --------------------------------------------------------------------------------------------------------------


def test_seed_and_episode_number_determine_start_and_actions_of_play(space):
    home = choose_reset_position(space, None)
    begin, knots = sample_play_episode(space, home, 50, 3, 7)
    again, same = sample_play_episode(space, home, 50, 3, 7)
    np.testing.assert_array_equal(begin, again)
    np.testing.assert_array_equal(knots, same)
    for seed, number in ((3, 8), (4, 7)):
        other, differ = sample_play_episode(space, home, 50, seed, number)
        assert np.abs(other - begin).max() > 1e-3 and np.abs(differ - knots).max() > 0.1
    assert all(space.is_inside(sample_play_episode(space, home, 5, 0, n)[0]) for n in range(50))


def test_a_reset_pose_outside_the_box_is_refused(space):
    np.testing.assert_array_equal(choose_reset_position(space, (0.2, -0.3)), (0.2, -0.3))
    assert space.is_inside(choose_reset_position(space, None))
    for place in ((0.05, -0.3), (float("nan"), -0.3)):
        with pytest.raises(InputError, match="reset .*: expected a place inside the workspace or box"):
            choose_reset_position(space, place)


def test_consecutive_plans_execute_the_wanted_actions_inside_the_box(space):
    knots = sample_play_episode(space, space.centre, 40, 1, 0)[1]
    loop = Loop(space, space.centre)
    script = ScriptedMotion(knots)
    loop.drive(script, lambda: script.fully_planned and loop.driver.at_rest(loop.now))
    begin = loop.plans[0].start
    done = np.array([t.values for t in loop.executed if t.start > begin - 1e-6])
    first = space.tool_coordinates(loop.plans[0].trajectory.positions[0])
    whole = np.vstack([np.zeros(2), space.constrain(first, np.zeros(2), knots)])
    # A plan goes on from the velocity that the arm really has, which is not quite the one wanted.
    np.testing.assert_allclose(done[:40], 0.5 * (whole[1:] + whole[:-1]), atol=0.1)
    assert np.abs(done).max() > 0.5 and outside(loop.tool) < 0.003
    assert len(loop.plans) >= 15
    starts = {round(p.start, 3): p.actions for p in loop.plans}
    for start, actions in starts.items():  # what each plan says is executed is executed, until the next one
        first = round((start - begin) / 0.1)
        np.testing.assert_allclose(done[first : first + 2], actions[:2], atol=0.01)


def test_a_late_plan_skips_the_actions_already_executed(space):
    knots = sample_play_episode(space, space.centre, 40, 1, 0)[1]
    loop, script = Loop(space, space.centre), ScriptedMotion(knots)
    loop.driver.begin_motion()
    for _ in range(2):
        while (start := loop.driver.next_start(loop.now)) is None:
            loop.advance()
        plan = loop.driver.make_plan(loop.now, start, script, loop.measured)
        loop.hand(plan)
        loop.advance(0.42)  # busy with something else
    ticks = round((loop.plans[1].start - loop.plans[0].start) / 0.1)
    assert ticks > 2
    xy, knot = script_state(loop, loop.plans[1].start)
    np.testing.assert_allclose(
        script.knots(0.0, 0, xy, knot, 3), knots[ticks : ticks + 3], err_msg="not where the arm is by now"
    )


def script_state(loop, start):
    xy, velocity = loop.driver._committed.tool_at(np.array([start]))
    return xy[0], velocity[0] / loop.driver.space.max_speed


def test_interrupted_actions_are_repeated_and_refused_ones_are_not():
    knots = np.arange(40.0).reshape(20, 2)
    script = ScriptedMotion(knots)
    for elapsed in (0, 2, 2):
        script.knots(0.0, elapsed, None, None, 8)
    script.interrupt()
    np.testing.assert_array_equal(script.knots(0.0, 0, None, None, 8), knots[4:12])
    script.interrupt(2)
    np.testing.assert_array_equal(script.knots(0.0, 0, None, None, 14), knots[6:])
    assert script.fully_planned
    script.interrupt()
    assert not script.fully_planned


def test_the_reset_pose_is_approached_on_a_straight_line_and_held(space):
    loop, target = Loop(space, (0.12, -0.36)), np.array([0.25, -0.25])
    approach = Approach(space, target)
    loop.drive(approach, lambda: approach.arrived(loop.driver.tool(loop.now, loop.measured)))
    if (plan := loop.driver.make_stop(loop.now)) is not None:
        loop.hand(plan)
    while not loop.driver.at_rest(loop.now):
        loop.advance()
    loop.advance(0.3)
    assert np.hypot(*(loop.tool[-1] - target)) < 0.008
    way = (np.array(loop.tool) - loop.tool[0]) @ np.array([-0.11, 0.13]) / np.hypot(0.11, 0.13)  # across the line
    assert np.abs(way).max() < 0.005


def test_the_speed_scale_limits_the_planned_speed(space):
    loop = Loop(space, (0.12, -0.36))
    approach = Approach(space, (0.25, -0.25))
    loop.drive(approach, lambda: loop.now > loop.cell.scene.time - 1 and len(loop.executed) > 15, speed=0.3)
    speeds = [np.hypot(*t.values) for t in loop.executed]
    assert 0.25 < max(speeds) < 0.32


def test_an_arm_away_from_its_reference_is_driven_from_the_measured_pose(space):
    loop, script = Loop(space, (0.2, -0.3)), ScriptedMotion(np.zeros((5, 2)))
    loop.drive(script, lambda: script.fully_planned and loop.driver.at_rest(loop.now))
    loop.cell.reset(space.inverse_kinematics((0.12, -0.36)))  # by hand
    loop.driver.begin_motion()
    plan = loop.driver.make_plan(
        loop.now, loop.driver.next_start(loop.now), ScriptedMotion(np.zeros((5, 2))), loop.measured
    )
    np.testing.assert_allclose(space.tool_coordinates(plan.trajectory.positions[0]), (0.12, -0.36), atol=1e-3)


# -- a person's commands -----------------------------------------------------------------------------------------------


def test_a_teleop_command_is_valid_for_200_ms(space):
    steering = TeleopMotion(space)
    steering.command((0.5, -0.5), 0.0, 10.0)
    np.testing.assert_array_equal(steering.knots(10.1, 1, None, None, 3), [[0.5, -0.5], [0, 0], [0, 0]])
    np.testing.assert_array_equal(steering.knots(10.3, 1, None, None, 2), np.zeros((2, 2)))


@pytest.mark.parametrize(
    ("velocity", "stamp", "said"),
    [
        ((np.nan, 0.0), 0.0, "expected 2 finite velocities"),
        ((np.inf, 0.0), 0.0, "expected 2 finite velocities"),
        ((1.0, 0.0), 9.0, "a stamp 1.00 s old"),
        ((1.0, 0.0), 11.0, "a stamp 1.00 s ahead"),
    ],
)
def test_an_invalid_or_badly_stamped_teleop_command_is_dropped(space, velocity, stamp, said):
    steering = TeleopMotion(space)
    steering.command(velocity, stamp, 10.0)
    assert said in steering.problem
    assert not steering.knots(10.0, 1, None, None, 4).any()
    steering.command((0.1, 0.2), 9.95, 10.0)
    assert not steering.problem and steering.knots(10.0, 1, None, None, 4).any()


def test_the_arm_follows_teleop_commands_and_brakes_when_they_cease(space):
    loop, steering = Loop(space, (0.12, -0.34), **TELEOP_PLANS), TeleopMotion(space)
    silence = loop.now + 0.9
    rate = iter(np.arange(loop.now, silence, 0.05))
    said = [next(rate)]

    def speak():
        if loop.now >= said[-1] and (following := next(rate, None)) is not None:
            steering.command((0.6, 0.3), 0.0, loop.now)
            said.append(following)
        return loop.now > silence + 0.7

    loop.drive(steering, speak)
    speeds = np.array([np.hypot(*t.values) for t in loop.executed])
    moving = [t.start + 0.1 for t, v in zip(loop.executed, speeds, strict=True) if v > 0.02]
    assert abs(speeds.max() - np.hypot(0.6, 0.3)) < 0.02
    assert max(moving) - said[-1] <= 0.5
    steady = [v for t, v in zip(loop.executed, speeds, strict=True) if silence - 0.4 < t.start < silence - 0.1]
    assert min(steady) > 0.95 * max(steady), "a command was taken for old between two messages"
    way = loop.tool[-1] - loop.tool[0]
    assert way[0] > 0.06 and abs(way[1] / way[0] - 0.5) < 0.05


def test_a_gamepad_moves_the_arm_only_while_its_button_is_held():
    pad = GamePad((1, 0), hold=4, end=1)
    assert pad.velocity([0.3, -0.7], [0, 0, 0, 0, 1]) == (-0.7, 0.3)
    assert pad.velocity([0.3, -0.7], [1, 1, 1, 1, 0]) == (0.0, 0.0)
    assert pad.velocity([0.3, -0.7], []) == (0.0, 0.0)
    assert len(pad.velocity([0.3], [0, 0, 0, 0, 1])) < 2


def test_one_button_press_ends_one_episode():
    pad = GamePad((1, 0), hold=4, end=1)
    presses = [pad.end_was_pressed([0, down]) for down in (1, 1, 0, 1, 1, 0, 0, 1)]
    assert presses == [False, False, False, True, False, False, False, True]


# -- figures -----------------------------------------------------------------------------------------------------------


def test_coverage_is_the_share_of_workspace_cells_visited_by_the_tool(space):
    assert share_covered(space, np.empty((0, 2))) == 0.0
    everywhere = np.stack(np.meshgrid(np.arange(0.0, 0.4, 0.005), np.arange(-0.5, 0.0, 0.005)), -1).reshape(-1, 2)
    assert share_covered(space, everywhere) == 1.0
    assert 0.4 < share_covered(space, everywhere[everywhere[:, 0] < 0.19]) < 0.6


# -- options -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def calls(monkeypatch):
    seen = []
    monkeypatch.setattr(training, "call", lambda target, **options: seen.append((target, options)))
    return seen


def run(*arguments):
    return CliRunner().invoke(cli.app, ["collect", *arguments])


def test_collect_sim_and_collect_live_have_their_own_options(calls):
    assert run("sim", "--out", "a").exit_code == run("live", "--mode", "joy", "--axes", "2,3").exit_code == 0
    (simulated, first), (live, second) = calls
    assert (
        simulated == "jepa_ros.collecting.simulated:collect_simulated"
        and live == "jepa_ros.collecting.live:collect_live"
    )
    assert first == {
        **{"out": Path("a"), "episodes": 500, "seed": 0, "robot": "openarm"},
        **{"width": 320, "height": 240, "rate": 10.0, "workers": 2, "task": "reach"},
    }
    assert second["axes"] == "2,3" and second["episodes"] is None and second["out"] == Path("runs/collect")
    assert not set(second) & {"width", "height", "rate", "workers", "context"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sim", "--out", "a", "--box", "0,1,0,1"], "No such option: --box"),
        (["sim", "--out", "a", "--use-sim-time"], "No such option: --use-sim-time"),
        (["live", "--width", "64"], "No such option: --width"),
        (["live", "--hold-button", "2"], "--hold-button requires --mode joy"),
        (["live", "--topic", "joy"], "--topic requires --mode joy or twist"),
        (["live", "--mode", "twist", "--axes", "1,0"], "--axes requires --mode joy"),
        (["live", "--mode", "joy", "--seed", "1"], "--seed requires --mode play"),
        (["sim"], "missing required option --out"),
    ],
)
def test_invalid_options_are_refused_in_one_line(calls, arguments, said):
    result = run(*arguments)
    [line] = result.stderr.splitlines()
    assert result.exit_code == 2 and said in line and not calls


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"mode": "dance"}, "mode 'dance': expected one of play, joy, twist"),
        ({"box": "1,2,3"}, "box '1,2,3': expected 4 comma-separated numbers"),
        ({"reset": "here"}, "reset 'here': expected 2 comma-separated numbers"),
        ({"axes": "1,-1"}, "axes '1,-1': expected 2 comma-separated whole numbers"),
        ({"ticks": 3, "seconds": 3.0}, "give --ticks or --seconds, not both"),
        ({"robot": "nobody"}, "nobody"),
        ({"out": Path(__file__)}, "cannot be written to"),
    ],
)
def test_options_are_checked_before_connecting_to_the_graph(tmp_path, changes, said):
    options = {
        **{"out": tmp_path, "mode": "play", "box": "", "reset": "", "axes": None, "topic": "", "episodes": None},
        **{"ticks": None, "seconds": None, "robot": "openarm", "seed": 0, "namespace": "", "use_sim_time": False},
        **{"hold_button": 4, "end_button": 1},
    }
    with pytest.raises(InputError, match=said) as error:
        collect_live(**options | changes)
    assert "\n" not in str(error.value)
