"""The gate ended or killed in motion, with each kind of controller."""

import signal

import numpy as np
import pytest
from std_msgs.msg import Float64MultiArray

from helpers.gate_controllers import EVERY, JOINT_JOG, JointJog
from helpers.gate_peers import GOAL, START, Bench, limits, minimum_jerk, straight
from jepa_ros.robot.motion.path import Path

# ms: what is left of a window; the transport; Servo's time-out.
WITHIN = {"JointTrajectoryController": 900, "ForwardCommandController": 200, "TwistStamped": 400, "JointJog": 400}
KINDS = {name.split("/")[1]: name for name in EVERY}


def away(bench):
    """In the middle of a motion, whatever the controller."""
    bench.ready()
    bench.follow(straight() if "servo" in bench.kind else minimum_jerk(START, GOAL), 7)
    bench.client.wait_for(lambda: np.abs(bench.peer.update(bench.now()) - START).max() > 0.05, "motion")
    return bench


@pytest.fixture(params=KINDS, scope="module")
def kind(request):
    if KINDS[request.param] == JOINT_JOG and JointJog is None:
        pytest.skip("control_msgs is not installed")
    return KINDS[request.param]


@pytest.mark.fault(13)
def test_a_gate_killed_in_motion_stops_the_arm_and_the_next_starts_from_there(start, client, kind, measured):
    """A trajectory's window ends at rest; a forward command's last set-point is held; Servo times out."""
    bench = Bench(start, client, f"killed_{kind.split('/')[0]}", kind)
    away(bench)
    died = bench.now()
    bench.process.signal(signal.SIGKILL)
    bench.process.wait()
    assert bench.rests()
    last = bench.positions[-1][1]
    moved = [t for t, q in bench.positions if np.abs(q - last).max() > 1e-6]
    measured["stop_ms"], measured["max_violation"] = 1e3 * max(moved[-1] - died, 0.0), bench.peer.auditor.worst
    assert measured["stop_ms"] < WITHIN[kind.split("/")[1]]
    assert bench.wrong == []
    bench.close()
    again = Bench(start, client, f"again_{kind.split('/')[0]}", kind)
    again.peer.put(last)
    again.description.publish(again.describe())
    again.until("HOLDING", timeout=30.0)
    client.wait_for(again.plans.get_subscription_count, "the gate to listen")
    again.settle()
    assert again.windows == [] and np.abs(again.peer.update(again.now()) - last).max() < 1e-9
    again.close()


@pytest.mark.fault(26)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_motion_publishes_a_stop_before_a_clean_exit(start, client, number, measured):
    bench = away(Bench(start, client, f"signal{int(number)}"))
    began, count = bench.now(), len(bench.windows)
    bench.process.signal(number)
    client.wait_for(lambda: bench.process.process.poll() is not None, "the process to end", 10)
    assert bench.process.wait() == 0, bench.process.output
    client.wait_for(lambda: len(bench.windows) > count, "the stop")
    assert bench.rests() and np.abs(bench.positions[-1][1] - GOAL).max() > 0.02
    last = bench.positions[-1][1]
    measured["stop_ms"] = 1e3 * (max(t for t, q in bench.positions if np.abs(q - last).max() > 1e-6) - began)
    measured["max_violation"] = bench.peer.auditor.worst
    assert bench.wrong == [] and "Traceback" not in bench.process.output
    bench.close()


@pytest.mark.fault(33)
@pytest.mark.parametrize("labels", [("deactivate",), ("deactivate", "cleanup"), ("active_shutdown",)], ids="-".join)
def test_a_lifecycle_transition_in_motion_stops_the_arm_first(start, client, measured, labels):
    bench = away(Bench(start, client, "_".join(labels)))
    began, count = bench.now(), len(bench.windows)
    for label in labels:
        assert client.transition(f"{bench.name}/arm_gate", label)
    assert len(bench.windows) > count
    assert bench.rests() and np.abs(bench.positions[-1][1] - GOAL).max() > 0.02
    last = bench.positions[-1][1]
    measured["stop_ms"] = 1e3 * (max(t for t, q in bench.positions if np.abs(q - last).max() > 1e-6) - began)
    measured["max_violation"] = bench.peer.auditor.worst
    assert bench.wrong == []
    if labels == ("deactivate", "cleanup"):
        for label in ("configure", "activate"):
            assert client.transition(f"{bench.name}/arm_gate", label)
        bench.ready()
    bench.close()


def test_forward_command_set_points_are_smooth_and_within_the_limits(start, client):
    bench = Bench(start, client, "forward", KINDS["ForwardCommandController"])
    sent = client.collect(Float64MultiArray, bench.command_topic, 1000)  # the controller itself may miss some
    bench.ready()
    sent.clear()
    bench.follow(minimum_jerk(START, GOAL), 7)
    bench.until("HOLDING")
    assert bench.rests() and bench.wrong == []
    points = np.array([m.data for m in sent])
    # One for each of the controller's cycles, 100 Hz; at the gate's own rate where a busy machine hides these.
    assert 90 < len(points) < 320, "100 to 200 Hz over 1.2 s"
    assert np.abs(np.diff(points, axis=0)).max() < float(limits().velocity.max()) * 0.05
    path = Path.rest(points[-1], 0.0)
    assert np.abs(path.at(0.0)[0] - GOAL).max() < 1e-6
    bench.close()
