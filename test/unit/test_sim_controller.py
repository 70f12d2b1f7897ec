"""The model of joint_trajectory_controller does what the real one of ROS 2 Jazzy (4.42, 100 Hz, defaults) does."""

import dataclasses
import math

import numpy as np
import pytest

from jepa_ros.errors import InputError
from jepa_ros.robot.motion.trajectory import JointTrajectory
from jepa_ros.robot.motion.trajectory_points import Point, Points
from jepa_ros.sim.controller import TrajectoryController

NAMES = ("a", "b")
T = 0.01  # s, a cycle
NOW = 100.0  # s
Z = (0.0, 0.0)


class Arm:
    """A controller at 100 Hz and an arm that goes exactly where it says; steps: rad, of each cycle."""

    def __init__(self, q=Z, offset=Z, **options):
        self.controller = TrajectoryController(NAMES, **options)
        self.now, self.offset = NOW, np.array(offset)
        self.controller.hold(np.array(q, dtype=float))
        self.q = np.array(q, dtype=float)
        self.steps, self.times = [], []

    def cycle(self, period=T):
        """One cycle; the set-point (2,) rad."""
        self.now += period
        before, self.q = self.q, self.controller.update(self.now, self.q + self.offset)
        self.steps.append(np.abs(self.q - before).max())
        self.times.append(self.now)
        return self.q

    def run(self, seconds):
        """Set-points (N, 2) rad of the cycles of so many seconds."""
        return np.array([self.cycle() for _ in range(round(seconds / T))])

    def send(self, *points, stamp=0.0, names=NAMES):
        self.controller.accept(Points(names, points, stamp), self.now)
        return self


@pytest.fixture
def arm():
    made = Arm()
    made.cycle()
    return made


def rest(t, q):
    """A point at rest, with all that the gate sends."""
    return Point(t, q, Z, Z)


GOAL = rest(1.0, (1.0, 2.0))
GOOD = (rest(0.5, (0.5, 1.0)), GOAL)


def changed(index, **fields):
    """The good points, one of them with other fields."""
    points = list(GOOD)
    points[index] = dataclasses.replace(points[index], **fields)
    return points


# -- what is rejected --------------------------------------------------------------------------------------------------

REJECTED = {
    "efforts": (changed(0, effort=(1.0, 1.0)), {}, "effort"),
    "efforts of zero": (changed(1, effort=Z), {}, "effort"),
    "an end in motion": (changed(1, velocities=(0.0, -0.02)), {}, "end at rest"),
    "an end in slow motion": (changed(1, velocities=(2e-7, 0.0)), {}, "end at rest, found 2e-07"),
    "NaN beside an end in motion": (changed(1, velocities=(math.nan, 0.1)), {}, "end at rest"),
    "a missing joint": ([Point(1.0, (1.0,))], {"names": ("a",)}, "expected the joints"),
    "a further joint": ([Point(1.0, (1.0, 1.0, 1.0))], {"names": ("a", "b", "c")}, "expected the joints"),
    "another joint": (GOOD, {"names": ("a", "c")}, "expected the joints"),
    "no joint": (GOOD, {"names": ()}, "no joint names"),
    "no point": ([], {}, "no points"),
    "no positions": (changed(0, positions=()), {}, "positions: expected 2"),
    "too few positions": (changed(0, positions=(1.0,)), {}, "positions: expected 2"),
    "too few velocities": (changed(0, velocities=(0.0,)), {}, "velocities: expected 2"),
    "too many accelerations": (changed(1, accelerations=(0.0, 0.0, 0.0)), {}, "accelerations: expected 2"),
    "equal times": (changed(1, time_from_start=0.5), {}, "increasing"),
    "decreasing times": (changed(1, time_from_start=0.4), {}, "increasing"),
    "an end in the past": (GOOD, {"stamp": NOW - 2.0}, "in the past"),
    "a stamp of a nanosecond": (GOOD, {"stamp": 1e-9}, "in the past"),
}


@pytest.mark.parametrize(("points", "header", "words"), REJECTED.values(), ids=REJECTED)
def test_a_trajectory_that_the_real_controller_rejects_is_rejected_and_motion_continues(arm, points, header, words):
    arm.send(*GOOD)
    arm.run(0.3)
    with pytest.raises(InputError, match=words):
        arm.send(*points, **header)
    arm.run(0.75)
    np.testing.assert_allclose(arm.q, GOAL.positions)


# -- what is accepted, harmless ----------------------------------------------------------------------------------------


def test_positions_only_are_followed_linearly(arm):
    q = arm.send(Point(0.0, Z), Point(1.0, (1.0, 2.0))).run(1.05)
    np.testing.assert_allclose(np.diff(q[:99], axis=0), np.tile([0.01, 0.02], (98, 1)), atol=1e-9)
    np.testing.assert_allclose(arm.q, [1.0, 2.0])


def test_velocities_make_cubic_segments_and_accelerations_quintic_ones(arm):
    t = np.array([0.0, 0.4, 1.0])
    rng = np.random.default_rng(0)
    q, qd, qdd = rng.normal(size=(3, 3, 2))
    qd[-1] = 0.0
    for given in (1, 2):
        trajectory = JointTrajectory(NAMES, t, q, *[qd, qdd][:given])
        arm.controller.accept(Points.from_trajectory(trajectory, arm.now), arm.now)
        got = arm.run(0.8)
        expected = trajectory.sample(np.array(arm.times[-80:]) + T - (arm.now - 0.8))[0]
        np.testing.assert_allclose(got, expected, atol=1e-9)
        arm.run(0.5)


def test_an_end_velocity_below_float_epsilon_is_accepted(arm):
    arm.send(*changed(1, velocities=(1e-7, 0.0)))


def test_an_end_in_motion_can_be_allowed():
    arm = Arm(allow_nonzero_velocity_at_end=True)
    arm.cycle()
    arm.send(*changed(1, velocities=(2.0, 0.0)))


def test_joints_in_another_order_are_mapped_by_name(arm):
    arm.send(Point(1.0, (2.0, 1.0)), names=("b", "a")).run(1.2)
    np.testing.assert_allclose(arm.q, [1.0, 2.0])


def test_a_stamp_of_zero_starts_in_the_next_cycle(arm):
    q = arm.send(*GOOD).run(1.0)
    assert np.abs(q[-2] - GOAL.positions).max() > 0.0
    np.testing.assert_allclose(q[-1], GOAL.positions, atol=1e-12)  # 0.99 s later, a period ahead


def test_of_two_messages_in_a_cycle_the_last_counts(arm):
    arm.send(rest(1.0, (5.0, 5.0))).send(*GOOD).run(1.2)
    np.testing.assert_allclose(arm.q, GOAL.positions)


def test_a_stamp_in_the_future_moves_the_arm_before_it(arm):
    arm.send(*GOOD)
    arm.run(0.5)
    arm.send(rest(0.0, (5.0, 5.0)), stamp=arm.now + 100.0)
    arm.run(1.0)
    assert 1e-6 < np.abs(arm.steps[-1]) < 0.01
    arm.run(100.0)
    np.testing.assert_allclose(arm.q, [5.0, 5.0], atol=1e-6)


# -- what is accepted, and a hazard ------------------------------------------------------------------------------------


def test_a_first_point_at_time_zero_away_from_the_arm_is_a_step(arm):
    arm.send(rest(0.0, (0.05, 0.0)), rest(1.0, (0.05, 0.0))).cycle()
    np.testing.assert_allclose(arm.q, [0.05, 0.0])


@pytest.mark.parametrize("first", [0.0, -0.2])
def test_an_old_stamp_or_a_negative_first_time_enters_the_trajectory_in_the_middle(arm, first):
    stamp = arm.now - 0.5 if first == 0.0 else 0.0
    arm.send(Point(first, Z), Point(first + 1.0, (1.0, 1.0)), stamp=stamp).cycle()
    assert arm.steps[-1] > 0.2


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("positions", math.nan),
        ("positions", math.inf),
        ("velocities", math.nan),  # Inf is an end in motion
        ("accelerations", math.nan),
        ("accelerations", math.inf),
    ],
)
def test_nan_and_inf_are_accepted_and_become_the_set_point(arm, field, value):
    arm.send(*changed(1, **{field: (value, 0.0)}))
    assert np.isfinite(arm.run(0.4)).all()
    command = arm.run(0.2)[-1]
    assert np.isnan(command[0]) and np.isfinite(command[1])
    assert np.isfinite(arm.controller.output).all(), "controller_state keeps the last finite one"


def test_after_nan_a_finite_trajectory_is_entered_by_a_step(arm):
    arm.send(rest(1.0, (math.nan, 0.0)))
    assert np.isnan(arm.run(0.5)[:, 0]).all()
    arm.q = np.zeros(2)  # hardware ignores NaN
    arm.send(Point(0.0, (0.1, 0.0)))
    np.testing.assert_allclose(arm.cycle(), [0.1, 0.0])


def test_accelerations_without_velocities_command_every_joint_to_zero_at_once():
    arm = Arm(q=(1.571, -0.5))
    arm.cycle()
    arm.send(Point(0.5, (1.6, -0.5), (), Z), Point(1.0, (1.6, -0.5), (), Z))
    assert not arm.run(0.9).any() and arm.steps[1] == pytest.approx(1.571)
    arm.run(0.2)
    np.testing.assert_allclose(arm.q, [1.6, -0.5])


@pytest.mark.parametrize("field", ["velocities", "accelerations"])
def test_derivatives_of_some_points_only_are_accepted_and_lower_the_degree_of_their_segments(arm, field):
    q = arm.send(*changed(0, **{field: ()})).run(1.1)
    if field == "velocities":  # then accelerations count as not given as well, where the other point has them: 0
        assert not q[:98].any()
    np.testing.assert_allclose(arm.q, GOAL.positions)


def test_a_segment_with_velocities_at_one_end_only_is_linear(arm):
    q = arm.send(Point(0.0, Z), Point(1.0, (1.0, 2.0), Z)).run(0.9)
    np.testing.assert_allclose(np.diff(q, axis=0), np.tile([0.01, 0.02], (89, 1)), atol=1e-9)


def test_a_joint_named_twice_gives_the_other_one_a_value_of_an_earlier_message(arm):
    arm.send(Point(1.0, (0.0, 0.7))).run(1.1)
    arm.send(Point(1.0, (1.0, 0.3)), names=("a", "a")).run(1.1)
    np.testing.assert_allclose(arm.q, [0.3, 0.7])


def test_positions_and_speeds_without_bounds_are_accepted(arm):
    arm.send(Point(0.01, (100.0, -100.0))).run(0.1)
    np.testing.assert_allclose(arm.q, [100.0, -100.0])


# -- sampling ----------------------------------------------------------------------------------------------------------


def test_the_set_point_is_one_period_ahead_of_the_reference(arm):
    q = arm.send(Point(0.0, Z), Point(1.0, (1.0, 1.0))).run(0.5)
    np.testing.assert_allclose(arm.controller.reference.q, q[-2], atol=1e-9)
    np.testing.assert_allclose(arm.controller.reference.qd, [1.0, 1.0])


def test_the_first_point_is_approached_from_the_measured_position():
    arm = Arm(offset=(-0.03, 0.0))  # an arm that sags
    arm.cycle()
    q = arm.send(rest(1.0, (1.0, 0.0))).run(1.1)
    assert q[0, 0] == pytest.approx(-0.03, abs=1e-4), "the set-point steps by the sag"
    np.testing.assert_allclose(arm.q, [1.0, 0.0])


def test_replaced_in_motion_the_approach_starts_at_the_measured_velocity():
    controller = TrajectoryController(NAMES)
    controller.hold(np.zeros(2))
    controller.update(NOW, np.zeros(2))
    controller.accept(Points(NAMES, (rest(1.0, (1.0, 1.0)),)), NOW)
    measured, speed = np.array([0.2, 0.2]), np.array([0.5, -0.5])
    first = controller.update(NOW + T, measured, speed)
    np.testing.assert_allclose((first - measured) / T, speed, atol=0.01)


def test_with_interpolate_from_desired_state_the_approach_starts_at_the_last_set_point():
    arm = Arm(offset=(-0.03, 0.0), interpolate_from_desired_state=True)
    arm.cycle()
    arm.send(rest(1.0, (1.0, 0.0))).run(1.1)
    assert max(arm.steps) < 0.03 and arm.steps[1] < 1e-3
    np.testing.assert_allclose(arm.q, [1.0, 0.0])


def test_before_the_first_trajectory_the_measured_position_is_held():
    controller = TrajectoryController(NAMES)
    np.testing.assert_array_equal(controller.update(NOW, np.array([0.1, 0.2])), [0.1, 0.2])
    np.testing.assert_array_equal(controller.update(NOW + T, np.array([0.3, 0.3])), [0.1, 0.2])


def test_hold_drops_the_trajectory(arm):
    arm.send(*GOOD).run(0.5)
    arm.controller.hold(np.array([0.3, 0.4]))
    np.testing.assert_array_equal(arm.run(0.5)[-1], [0.3, 0.4])


# -- speed scaling -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("speed", [0.25, 0.5, 1.0])
def test_speed_scaling_stretches_the_motion(arm, speed):
    arm.controller.speed = speed
    arm.send(Point(0.0, Z), Point(1.0, (1.0, 1.0))).run(0.8)
    np.testing.assert_allclose(arm.q, (0.79 * speed + T) * np.ones(2), atol=1e-9)


def test_a_speed_of_zero_holds_the_arm_where_it_is_and_motion_resumes(arm):
    arm.send(*GOOD).run(0.5)
    arm.controller.speed, here = 0.0, arm.q
    assert np.abs(arm.run(3.0) - here).max() < 0.03
    assert np.ptp(arm.run(1.0), axis=0).max() == 0.0
    arm.controller.speed = 1.0
    arm.run(0.6)
    np.testing.assert_allclose(arm.q, GOAL.positions)


def test_a_new_trajectory_sets_the_time_to_the_clock_again_and_the_set_point_jumps(arm):
    trajectory = (Point(0.0, Z), Point(1.0, (1.0, 1.0)))
    start, arm.controller.speed = arm.now, 0.0
    arm.send(*trajectory, stamp=start)
    arm.run(0.5)
    arm.send(*trajectory, stamp=start).cycle()
    assert arm.steps[-1] == pytest.approx(0.5)


# -- activation --------------------------------------------------------------------------------------------------------


def test_deactivated_in_motion_it_holds_the_last_set_point_and_drops_messages_silently(arm):
    arm.send(*GOOD).run(0.5)
    last = arm.q
    arm.controller.deactivate()
    arm.send(*GOOD)
    np.testing.assert_array_equal(arm.run(1.0), np.tile(last, (100, 1)))
    arm.controller.activate(arm.q + 0.02)
    np.testing.assert_array_equal(arm.run(1.0), np.tile(last, (100, 1)))
    arm.send(rest(1.0, (0.0, 0.0))).run(1.2)
    np.testing.assert_allclose(arm.q, Z, atol=1e-12)


def test_an_inactive_controller_still_rejects(arm):
    arm.controller.deactivate()
    with pytest.raises(InputError, match="no points"):
        arm.send()


def test_without_a_set_point_activation_holds_the_measured_position():
    fresh, told = TrajectoryController(NAMES), Arm(set_last_command_as_state_on_activation=False)
    for controller in (fresh, told.controller):
        controller.deactivate()
        controller.activate(np.array([0.4, 0.5]))
        np.testing.assert_array_equal(controller.update(NOW + 1, np.array([0.4, 0.5])), [0.4, 0.5])


def test_a_control_loop_that_stalled_catches_up_in_one_cycle(arm):
    arm.send(Point(0.0, Z), Point(1.0, (1.0, 1.0))).run(0.3)
    arm.cycle(period=0.12)
    assert arm.steps[-1] == pytest.approx(0.12)
    arm.cycle()
    assert arm.steps[-1] == pytest.approx(T)


# -- properties --------------------------------------------------------------------------------------------------------


def valid(rng):
    """A trajectory that begins in the future, with derivatives of one kind, and ends at rest."""
    n, kind = int(rng.integers(1, 6)), int(rng.integers(3))
    times = np.cumsum(rng.uniform(0.05, 0.4, n))
    q, qd, qdd = rng.uniform(-1, 1, (3, n, 2))
    qd[-1] = qdd[-1] = 0.0
    points = [Point(float(times[i]), q[i], qd[i] if kind > 0 else (), qdd[i] if kind > 1 else ()) for i in range(n)]
    return Points(NAMES, tuple(points), float(rng.choice([0.0, NOW + T, NOW + 0.5])))


def spoiled(rng, trajectory):
    """The same with one fault for which the real controller rejects it."""
    points, last = list(trajectory.points), trajectory.points[-1]
    end = len(points) - 1
    faults = (
        lambda: points.__setitem__(end, dataclasses.replace(last, effort=Z)),
        lambda: points.__setitem__(end, dataclasses.replace(last, velocities=(rng.choice([-1, 1]) * 1e-6, 0.0))),
        lambda: points.append(last),
        lambda: points.append(dataclasses.replace(last, time_from_start=last.time_from_start - 0.01)),
        lambda: points.__setitem__(0, dataclasses.replace(points[0], positions=points[0].positions[:1])),
        lambda: points.__setitem__(0, dataclasses.replace(points[0], accelerations=(0.0, 0.0, 0.0))),
        points.clear,
    )
    fault = int(rng.integers(len(faults) + 2))
    if fault < len(faults):
        faults[fault]()
        return Points(NAMES, tuple(points), trajectory.stamp)
    names, stamp = [(("a",), 0.0), (NAMES, NOW - 10.0)][fault - len(faults)]
    return Points(names, tuple(points), stamp)


@pytest.mark.parametrize("seed", range(60))
def test_random_trajectories_are_accepted_and_ended_or_rejected_and_ignored(seed):
    rng = np.random.default_rng(seed)
    arm = Arm(q=rng.uniform(-1, 1, 2), interpolate_from_desired_state=bool(rng.integers(2)))
    arm.cycle()
    trajectory = valid(rng)
    arm.controller.accept(trajectory, arm.now)
    arm.run(0.3)
    before, here = [arm.cycle() for _ in range(2)][-1], arm.controller.reference
    with pytest.raises(InputError) as caught:
        arm.controller.accept(spoiled(rng, valid(rng)), arm.now)
    assert "\n" not in str(caught.value)
    arm.cycle()
    np.testing.assert_allclose(arm.controller.reference.q, before, atol=1e-6)  # what comes next is what was to come
    assert here is not arm.controller.reference
    q = arm.run(3.0)
    np.testing.assert_allclose(q[-1], trajectory.points[-1].positions, atol=1e-9)
    assert np.isfinite(q).all() and not np.any(arm.controller.reference.qd)


@pytest.mark.parametrize("seed", range(20))
def test_a_way_from_rest_follows_the_checked_trajectory_whatever_is_missing(seed):
    """The model for every message and the interpolation of JointTrajectory agree where both take it."""
    rng = np.random.default_rng(seed)
    points = valid(rng)
    arm = Arm(q=points.points[0].positions)
    arm.cycle()
    message = Points(NAMES, points.points, arm.now + T)
    arm.controller.accept(message, arm.now)
    begin = message.stamp + points.points[0].time_from_start
    got, at = arm.run(2.5), np.array(arm.times[-250:]) + T
    after = at >= begin
    expected = points.to_trajectory().sample(at - message.stamp)[0]
    np.testing.assert_allclose(got[after], expected[after], atol=1e-7)
