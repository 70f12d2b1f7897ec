"""Silent controllers, clocks that are behind and lost stops."""

import numpy as np
import pytest

from helpers.controller_loop import BEGIN, ControllerLoop
from helpers.gate_simulation import GOAL
from jepa_ros.robot.gate.types import Cause, GateCode, GateState


@pytest.mark.parametrize("behind", [0.2, 0.3])
def test_reports_stamped_by_a_clock_that_is_behind_do_not_stop_the_arm(behind):
    """`command_stamps: zero` is for such clocks."""
    loop = ControllerLoop()
    receive = loop._receive_report
    loop._receive_report = lambda report: receive(report._replace(stamp=report.stamp - behind))
    loop.ready()
    assert loop.follow(2.0 * GOAL)
    loop.run(1.5)
    assert GateCode.CONTROLLER_ELSEWHERE not in {status.code for _, status in loop.statuses}


def test_a_stop_ends_although_controllers_and_joint_states_have_fallen_silent():
    loop = ControllerLoop(activity=False).moving(2.0 * GOAL)
    loop.gate.update_joint_states = lambda *arguments: None
    loop.gate.update_controller = lambda *arguments: None
    loop.run(5.0)
    assert loop.state == GateState.HOLDING


@pytest.mark.parametrize(
    "report_every, duration, lost",
    [(1, 1.2, 1), (1, 1.2, 10**6), (1, 1.2, 2), (0, 0.8, 3)],
)
def test_a_lost_stop_makes_no_step_when_it_is_sent_again(report_every, duration, lost):
    loop = ControllerLoop(report_every=report_every).moving(2.0 * GOAL, duration, 0.25 * duration)
    loop.peer.lost = lost
    loop.gate.stop_and_latch(Cause(GateCode.STOP_SERVICE, "the service stop was called"), BEGIN + loop.now)
    loop.until(GateState.LATCHED)
    loop.run(0.8)
    assert np.ptp([q for _, q in loop.peer.setpoints[-20:]], axis=0).max() < 1e-6
    assert loop.step <= 1.0 + 1e-6


def block(peer):
    """The arm stays where it is, whatever its controller commands."""
    stuck = peer.measured.copy()
    peer.__class__ = type("Blocked", (type(peer),), {"measured": property(lambda self: stuck)})


@pytest.mark.parametrize("kind", ["joint_trajectory", "forward_position"])
def test_release_after_a_following_error_moves_the_set_point_to_the_arm(kind):
    loop = ControllerLoop(kind, frozen_timeout=5.0).moving(2.0 * GOAL)
    block(loop.peer)
    loop.until(GateState.LATCHED)
    assert loop.code == GateCode.FOLLOWING_ERROR
    loop.run(1.0)
    assert not loop.gate.release(BEGIN + loop.now)
    loop.run(2.0)
    assert loop.state == GateState.HOLDING, loop.text
    np.testing.assert_allclose(loop.peer.q, loop.peer.measured, atol=5e-3)
    assert loop.step <= 1.0 + 1e-6
