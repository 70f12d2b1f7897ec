"""The rules of joint_trajectory_controller that its model keeps."""

import numpy as np
import pytest

from jepa_ros.errors import InputError
from jepa_ros.robot.motion.trajectory import JointTrajectory
from jepa_ros.sim.controller import TrajectoryController

NAMES = ("a", "b")


def line(start, end, times=(0.0, 1.0), names=NAMES, speed_at_end=None):
    """From start to end (2,) rad; with velocities where the last one is given."""
    velocities = None if speed_at_end is None else np.array([[0.0, 0.0], [speed_at_end, 0.0]])
    return JointTrajectory(names, np.array(times), np.array([start, end], float), velocities)


@pytest.fixture
def controller():
    made = TrajectoryController(NAMES)
    made.hold(np.array([0.0, 0.0]))
    return made


def test_no_reference_before_the_first_hold():
    assert TrajectoryController(NAMES).update(1.0) is None


@pytest.mark.parametrize("names", [("a", "c"), ("a", "b", "c"), ("a",)])
def test_a_trajectory_of_other_joints_is_rejected(controller, names):
    points = np.zeros((2, len(names)))
    with pytest.raises(InputError, match="expected the joints .'a', 'b'., found"):
        controller.accept(JointTrajectory(names, np.array([0.0, 1.0]), points), 0, 5.0)


def test_a_trajectory_that_ends_in_the_past_is_rejected(controller):
    controller.accept(line((0, 0), (1, 1)), 4.0, 5.0)  # just ends now
    with pytest.raises(InputError, match="0.500 s in the past"):
        controller.accept(line((0, 0), (1, 1)), 3.5, 5.0)


@pytest.mark.parametrize("speed, accepted", [(0.5, False), (-0.5, False), (0.011, False), (0.009, True), (None, True)])
def test_a_trajectory_that_ends_in_motion_is_rejected(controller, speed, accepted):
    trajectory = line((0, 0), (1, 1), speed_at_end=speed)
    if accepted:
        return controller.accept(trajectory, 0, 5.0)
    with pytest.raises(InputError, match="expected an end at rest"):
        controller.accept(trajectory, 0, 5.0)


def test_an_end_in_motion_can_be_allowed():
    TrajectoryController(NAMES, allow_nonzero_velocity_at_end=True).accept(line((0, 0), (1, 1), speed_at_end=2), 0, 5.0)


def test_a_rejected_trajectory_changes_nothing(controller):
    controller.accept(line((0, 0), (1, 2)), 10.0, 10.0)
    with pytest.raises(InputError):
        controller.accept(line((5, 5), (6, 6)), 3.0, 10.2)
    np.testing.assert_allclose(controller.update(10.5), [0.5, 1.0])


def test_stamp_zero_means_now(controller):
    controller.accept(line((0, 0), (1, 2)), 0, 7.0)
    np.testing.assert_allclose(controller.update(7.25), [0.25, 0.5])


def test_moves_to_a_first_point_in_the_future(controller):
    controller.update(1.0)
    controller.accept(line((1, -1), (3, -1), times=(0.5, 1.5)), 1.5, 1.0)
    at = [controller.update(1.0 + t) for t in (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 9.0)]
    expected = [(0, 0), (0.25, -0.25), (0.5, -0.5), (1, -1), (2, -1), (3, -1), (3, -1)]
    np.testing.assert_allclose(at, expected, atol=1e-12)


def test_the_lead_in_starts_at_the_current_reference_and_velocity(controller):
    rest = np.zeros((2, 2))
    moving = JointTrajectory(NAMES, np.array([0.0, 2.0]), np.array([[0.0, 0], [2, 2]]), rest, rest)
    controller.accept(moving, 10.0, 10.0)
    before = controller.update(11.0).copy()
    np.testing.assert_allclose(before, [1.0, 1.0])
    controller.accept(
        JointTrajectory(NAMES, np.array([0.0, 1.0]), np.array([[2.0, 2], [3, 3]]), rest, rest), 11.5, 11.0
    )
    h = 1e-4
    after = controller.update(11.0 + h)
    np.testing.assert_allclose((after - before) / h, 15 / 8 * np.ones(2), atol=1e-3)  # quintic's speed half way
    np.testing.assert_allclose(controller.update(11.5), [2.0, 2.0], atol=1e-9)


def test_a_started_trajectory_is_sampled_at_the_present_time(controller):
    controller.accept(line((0, 0), (4, 8), times=(0.0, 4.0)), 6.0, 7.0)
    np.testing.assert_allclose(controller.update(7.0), [1.0, 2.0])
    np.testing.assert_allclose(controller.update(8.0), [2.0, 4.0])


def test_trajectory_joints_are_mapped_by_name(controller):
    rest = np.zeros((2, 2))
    swapped = JointTrajectory(("b", "a"), np.array([0.0, 1.0]), np.array([[0.0, 0], [2, 1]]), rest, rest)
    controller.accept(swapped, 1.0, 1.0)
    np.testing.assert_allclose(controller.update(2.0), [1.0, 2.0])


def test_hold_drops_the_trajectory(controller):
    controller.accept(line((0, 0), (1, 1)), 1.0, 1.0)
    controller.hold(np.array([0.3, 0.4]))
    np.testing.assert_array_equal(controller.update(1.5), [0.3, 0.4])
