"""Implausible joint states, an arm outside its limits, and an arm that does not follow."""

import itertools
import math

import numpy as np
import pytest
from jepa_msgs.msg import GateStatus

from helpers.gate_peers import GOAL, JOINTS, START, Bench, limits, minimum_jerk

UPPER = float(limits().upper[0])


@pytest.fixture(scope="module")
def bench(start, client):
    made = Bench(start, client, "gate")
    yield made
    made.close()
    assert made.wrong == []


def without(i):
    return lambda m: (m.name.pop(1 + i), m.position.pop(1 + i), m.velocity.pop(1 + i))


def called(i, name):
    return lambda m: m.name.__setitem__(1 + i, name)


def at(i, value):
    return lambda m: m.position.__setitem__(1 + i, value)


@pytest.mark.fault(15)
@pytest.mark.parametrize(
    "spoil, word",
    [
        (without(2), "is missing"),
        (called(2, "elbow"), "is missing"),
        (called(2, JOINTS[3]), "is missing"),
        (at(2, math.nan), "is not finite"),
        (lambda m: m.position.pop(), "expected 8 positions, found 7"),
    ],
    ids=["missing", "renamed", "duplicate name", "nan", "too few positions"],
)
def test_invalid_joint_states_hold_the_arm_until_they_are_valid(bench, measured, spoil, word):
    bench.moving()
    began, bench.spoil = bench.now(), spoil
    stopping = bench.stop_of(began, measured)
    assert word in stopping.text
    refused = bench.status.rejected
    bench.plan(minimum_jerk(bench.positions[-1][1], START))
    bench.client.wait_for(lambda: bench.status.rejected > refused, "the plan to be refused")
    bench.spoil = None
    bench.ready()  # resumes without release


@pytest.mark.fault(15)
def test_reordered_joint_states_are_mapped_by_name_and_motion_continues(bench, measured):
    def reverse(m):
        m.name.reverse(), m.position.reverse(), m.velocity.reverse()

    for _ in range(3):
        bench.moving()
        first, bench.spoil = len(bench.statuses), reverse
        bench.until("HOLDING")
        assert bench.rests()
        stops = [s.text for s in bench.statuses[first:] if s.state == GateStatus.STOPPING]
        assert not [text for text in stops if "joint" in text]
        bench.spoil = None
        if bench.status.stops == bench.stops_before:  # else this process, which plays all others, was too slow
            break
    np.testing.assert_allclose(bench.positions[-1][1], GOAL, atol=1e-6)
    measured["max_violation"] = bench.peer.auditor.worst


@pytest.mark.fault(15)
@pytest.mark.fault(32)
@pytest.mark.parametrize("kind, timeout, word", [("missing", 0.3, "no joint_states"), ("frozen", 0.35, "frozen")])
def test_missing_or_frozen_joint_states_stop_the_arm(bench, measured, kind, timeout, word):
    bench.moving()
    began = bench.now()
    if kind == "missing":
        bench.send_joints = False
    else:
        bench.frozen = bench.peer.update(began)
    stopping = bench.stop_of(began, measured, timeout)
    assert word in stopping.text
    assert measured["caught_ms"] < 150  # of a test that plays all the other nodes itself
    bench.ready()


@pytest.mark.fault(32)
def test_joint_states_that_jump_faster_than_physics_stop_the_arm(bench, measured):
    bench.moving()
    began, odd = bench.now(), itertools.cycle((0.0, 0.6))
    bench.spoil = lambda m: m.position.__setitem__(4, m.position[4] + next(odd))  # to and fro at 100 Hz
    stopping = bench.stop_of(began, measured)
    assert "jumped" in stopping.text
    bench.spoil = None
    bench.ready()


@pytest.mark.fault(16)
def test_outside_the_joint_limits_the_arm_moves_inward_only(start, client, measured):
    bench = Bench(start, client, "outside")
    outside = np.array([UPPER + 0.15, *START[1:]])
    bench.peer.put(outside)
    bench.description.publish(bench.describe())
    bench.until("HOLDING", timeout=30.0)
    client.wait_for(bench.plans.get_subscription_count, "the gate to listen")
    bench.settle()
    before = bench.status.rejected
    bench.plan(minimum_jerk(outside, outside + np.array([0.05, 0, 0, 0, 0, 0, 0]), 1.5), 4)
    client.wait_for(lambda: bench.status.rejected > before or bench.status.clipped, "an answer")
    assert bench.rests() and max(q[0] for _, q in bench.positions) <= outside[0] + 1e-6
    bench.follow(minimum_jerk(outside, START, 2.5), 5)
    bench.until("HOLDING")
    assert bench.rests() and max(q[0] for _, q in bench.positions) <= outside[0] + 1e-6
    np.testing.assert_allclose(bench.positions[-1][1], START, atol=1e-5)
    assert bench.wrong == []
    measured["max_violation"] = bench.peer.auditor.worst
    bench.close()


@pytest.mark.fault(31)
def test_a_following_error_latches_and_release_starts_from_the_measured_state(bench, measured):
    bench.moving()
    began, stuck = bench.now(), bench.peer.update(bench.now())
    rng = np.random.default_rng(0)
    bench.spoil = lambda m: [m.position.__setitem__(1 + i, stuck[i] + rng.normal(0, 1e-4)) for i in range(len(JOINTS))]
    stopping = bench.stop_of(began, measured)
    assert "following error" in stopping.text
    bench.until("LATCHED", "following error")
    bench.peer.put(stuck)  # where the arm really is, which is not where the last window ended
    bench.peer.auditor.path = None
    bench.release()
    bench.spoil = None
    far = float(np.abs(bench.peer.update(bench.now()) - stuck).max())
    assert far < 1e-3, "released from the measured state"
    bench.ready()
