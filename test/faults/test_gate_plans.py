"""Plans that must not move the arm, and other publishers; a real gate between peers played by the test."""

import math

import numpy as np
import pytest
from jepa_msgs.msg import Plan
from trajectory_msgs.msg import JointTrajectory as JointTrajectoryMessage

from helpers.gate_peers import GOAL, JOINTS, START, Bench, limits, minimum_jerk
from jepa_ros.nodes.common.convert import to_stamp, trajectory_message
from jepa_ros.robot.gate.types import GateCode


@pytest.fixture(scope="module")
def bench(start, client):
    made = Bench(start, client, "gate")
    yield made
    made.close()
    assert made.wrong == []


def send(bench, trajectory, plan_id, spoil=lambda message: None):
    message = Plan(plan_id=plan_id, trajectory=trajectory_message(trajectory))
    message.header.stamp = to_stamp(round((bench.now() + 0.1) * 1e9))
    message.source_stamp = to_stamp(round(bench.now() * 1e9))
    message.valid_until = to_stamp(round((bench.now() + 3.0) * 1e9))
    spoil(message)
    bench.plans.publish(message)


def rejected(bench, trajectory, spoil=lambda message: None):
    """Send a plan that is rejected; the motion is not affected."""
    before = bench.status.rejected
    send(bench, trajectory, 9, spoil)
    bench.client.wait_for(lambda: bench.status.rejected == before + 1, "the rejection")
    assert bench.status.plan_id != 9


@pytest.mark.fault(8)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf], ids=str)
@pytest.mark.parametrize("field", ["positions", "velocities", "accelerations"])
def test_a_plan_with_nan_or_inf_is_rejected_and_the_active_plan_continues(bench, measured, field, value):
    bench.moving()
    rejected(bench, minimum_jerk(START, START), lambda m: getattr(m.trajectory.points[3], field).__setitem__(2, value))
    bench.until("HOLDING")
    assert bench.rests()
    np.testing.assert_allclose(bench.positions[-1][1], GOAL, atol=1e-6)
    measured["max_violation"] = bench.peer.auditor.worst


@pytest.mark.fault(8)
def test_a_plan_with_missing_values_is_rejected(bench):
    bench.ready()
    rejected(bench, minimum_jerk(START, GOAL), lambda m: m.trajectory.points[2].velocities.pop())
    rejected(bench, minimum_jerk(START, GOAL), lambda m: setattr(m.trajectory, "points", []))
    rejected(bench, minimum_jerk(START, GOAL), lambda m: setattr(m.trajectory, "joint_names", list(JOINTS[:-1])))
    assert bench.rests()


@pytest.mark.fault(14)
def test_a_slightly_too_fast_plan_is_slowed_with_all_joints_synchronised(bench, measured):
    bench.ready()
    clipped = bench.status.clipped
    far = START + 3.3 * (GOAL - START)
    fastest = 1.875 * np.abs(far - START).max() / limits().velocity.max()
    bench.follow(minimum_jerk(START, far, round(fastest / 1.2, 2)), 21)
    bench.client.wait_for(lambda: bench.status.clipped > clipped, "the cut to be counted")
    bench.until("HOLDING")
    assert bench.rests()
    share = np.array([(q - START) / (far - START) for _, q in bench.positions])
    assert np.ptp(share, axis=1).max() < 0.02, "straight in joint space: no joint was cut alone"
    np.testing.assert_allclose(bench.positions[-1][1], far, atol=1e-5)
    measured["max_violation"] = bench.peer.auditor.worst


@pytest.mark.fault(14)
@pytest.mark.parametrize(
    "trajectory, word",
    [
        (minimum_jerk(START, GOAL, 0.1), "times its limit"),
        (minimum_jerk(START, START + np.array([3.5, 0, 0, 0, 0, 0, 0]), 3.0), "position of"),
    ],
    ids=["speed", "position"],
)
def test_a_gross_limit_violation_is_rejected_and_latches_until_release(bench, trajectory, word):
    bench.ready()
    send(bench, trajectory, 22)
    latched = bench.until("LATCHED", "gross breach")
    assert latched.code == GateCode.PLAN_GROSS_BREACH and word in latched.text
    rejected(bench, minimum_jerk(START, GOAL))
    assert bench.rests() and np.abs(bench.positions[-1][1] - START).max() < 1e-3
    bench.release()


@pytest.mark.fault(14)
def test_a_plan_that_starts_away_from_the_arm_is_refused(bench):
    bench.ready()
    rejected(bench, minimum_jerk(START + 0.5, GOAL))
    assert bench.rests() and np.abs(bench.positions[-1][1] - START).max() < 1e-3


@pytest.mark.fault(20)
def test_a_second_command_publisher_stops_the_arm_and_blocks_plans(bench, measured):
    bench.moving()
    began = bench.now()
    rival = bench.client.node.create_publisher(JointTrajectoryMessage, bench.command_topic, 10)
    stopping = bench.stop_of(began, measured)
    assert "another publisher on" in stopping.text
    bench.client.wait_for(lambda: any("another publisher on" in d for d in bench.errors), "an error in the diagnostics")
    rejected(bench, minimum_jerk(bench.positions[-1][1], START))
    bench.client.node.destroy_publisher(rival)
    bench.ready()


@pytest.mark.fault(28)
def test_without_a_controller_the_gate_waits_and_sends_no_burst_later(start, client, measured):
    bench = Bench(start, client, "alone")
    client.node.destroy_subscription(bench.subscription)
    bench.description.publish(bench.describe())
    bench.until("HOLDING", timeout=30.0)
    client.wait_for(bench.plans.get_subscription_count, "the gate to listen")
    client.wait_for(lambda: any("no controller subscribes" in d for d in bench.warnings), "a warning")
    for _ in range(5):
        rejected(bench, minimum_jerk(START, GOAL))
    bench.listen()
    client.wait_for(lambda: not any("no controller" in d for d in bench.newest_diagnostics), "the controller seen")
    assert bench.windows == [] and bench.status.state == bench.status.HOLDING
    bench.follow(minimum_jerk(START, GOAL), 3)
    bench.until("HOLDING")
    assert bench.rests() and bench.wrong == []
    measured["max_violation"] = bench.peer.auditor.worst
    bench.close()
