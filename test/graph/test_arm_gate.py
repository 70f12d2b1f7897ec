"""The arm_gate process between a planner and a controller that are played by the test."""

import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from jepa_msgs.msg import GateStatus, Plan
from std_msgs.msg import Bool, String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory as JointTrajectoryMessage

from helpers.gate_controllers import JOINT_JOG, PEERS, JointJog, robot_file
from helpers.gate_peers import Bench, reached
from helpers.gate_plans import GOAL, JOINTS, ROBOT, START, minimum_jerk, urdf
from helpers.nodes import hide_package
from jepa_ros.nodes.common.convert import to_seconds, to_stamp, trajectory_message
from jepa_ros.nodes.common.qos import LATCHED, NEWEST
from jepa_ros.robot.config import read_robot

pytestmark = pytest.mark.graph
with_control_msgs = pytest.mark.skipif(JointJog is None, reason="control_msgs is not installed")


@pytest.fixture(scope="module")
def bench(start, client):
    made = Bench(start, client, "gate", following_error=0.6)  # frozen joint states must not latch on a busy machine
    yield made
    made.close()
    assert made.wrong == []


@pytest.mark.smoke
def test_the_gate_follows_a_plan_and_publishes_the_executed_actions(bench):
    bench.ready()
    bench.executed.clear()
    bench.follow(minimum_jerk(START, GOAL), 5)
    bench.until("HOLDING")
    assert bench.rests()
    np.testing.assert_allclose(bench.positions[-1][1], GOAL, atol=1e-6)
    followed = [e for e in bench.executed if e.plan_id == 5]
    assert len(followed) >= 11 and followed[0].action_space == "planar_velocity"
    assert followed[0].header.frame_id == ROBOT.base_frame and len(followed[0].values) == 2
    stamps = np.array([to_seconds(e.header.stamp) for e in bench.executed])
    np.testing.assert_allclose(np.diff(stamps), 0.1, atol=1e-6)
    assert max(np.abs(e.values).max() for e in followed) > 0.05
    assert 10 < len(bench.windows) < 40
    speeds = np.abs(np.diff([q for _, q in bench.positions], axis=0)).max(axis=1)
    assert speeds.max() < 0.03  # no step: 1.875 * 0.4 rad / 1.2 s in 10 ms, with the timer's jitter


@pytest.mark.smoke
@pytest.mark.parametrize(
    "cut, word, within",
    [("latents", "latent", 0.4), ("joints", "joint_states", 0.3), ("frozen", "frozen", 0.3)],
)
def test_the_gate_stops_smoothly_when_an_input_is_stale(bench, cut, word, within):
    bench.moving()
    began = bench.now()
    if cut == "frozen":
        bench.frozen = bench.peer.update(began)
    else:
        setattr(bench, f"send_{cut}", False)
    stopped = bench.until("STOPPING", word, 3.0)
    assert to_seconds(stopped.header.stamp) - began < within + 0.3  # of a machine that may be busy
    bench.until("HOLDING", timeout=3.0)
    assert bench.rests() and np.abs(bench.positions[-1][1] - GOAL).max() > 0.02


def test_the_gate_stops_when_its_plan_expires(bench):
    bench.ready()
    bench.follow(minimum_jerk(START, GOAL, 1.6), 8, valid=0.8)
    bench.until("STOPPING", "expired")
    bench.until("HOLDING")
    assert bench.rests() and np.abs(bench.positions[-1][1] - GOAL).max() > 0.02


@pytest.mark.smoke
def test_a_plan_with_nan_is_rejected_and_the_active_plan_continues(bench):
    bench.moving()
    rejected = bench.status.rejected
    bad = trajectory_message(minimum_jerk(START, GOAL))
    bad.points[3].positions[2] = float("nan")
    message = Plan(plan_id=9, trajectory=bad)
    message.header.stamp = message.source_stamp = to_stamp(round(bench.now() * 1e9))
    message.valid_until = to_stamp(round((bench.now() + 2.0) * 1e9))
    bench.plans.publish(message)
    bench.client.wait_for(lambda: bench.status.rejected == rejected + 1, "the rejection")
    bench.until("HOLDING")
    assert bench.rests()
    np.testing.assert_allclose(bench.positions[-1][1], GOAL, atol=1e-6)


@pytest.mark.smoke
def test_the_stop_service_latches_and_the_release_service_releases(bench):
    bench.moving()
    asked = time.monotonic()
    assert bench.client.call(Trigger, f"{bench.name}/stop", Trigger.Request()).success
    assert bench.until("LATCHED", "stop").code == GateStatus.STOP_SERVICE
    assert time.monotonic() - asked < 2.0 and bench.rests()
    rejected = bench.status.rejected
    bench.plan(minimum_jerk(bench.positions[-1][1], GOAL))
    bench.client.wait_for(lambda: bench.status.rejected == rejected + 1, "the plan to be refused")
    assert bench.status.rejection_code == GateStatus.STOP_SERVICE
    late = bench.client.collect(GateStatus, f"{bench.name}/gate_status", LATCHED)
    bench.client.wait_for(lambda: late, "the status of the latched gate")
    assert late[0].state == GateStatus.LATCHED
    assert bench.client.call(Trigger, f"{bench.name}/release", Trigger.Request()).success
    bench.until("HOLDING")
    bench.ready()


@pytest.mark.parametrize("qos", [LATCHED, NEWEST], ids=["latched", "volatile"])
def test_e_stop_latches_and_blocks_release_while_pressed(bench, qos):
    bench.ready()
    publisher = bench.client.node.create_publisher(Bool, f"{bench.name}/e_stop", qos)
    bench.client.wait_for(publisher.get_subscription_count, "the gate to listen")
    bench.moving()
    publisher.publish(Bool(data=True))
    assert bench.until("LATCHED", "e-stop").code == GateStatus.E_STOP
    answer = bench.client.call(Trigger, f"{bench.name}/release", Trigger.Request())
    assert not answer.success and "e-stop" in answer.message
    publisher.publish(Bool(data=False))
    assert bench.rests() and bench.status.state == GateStatus.LATCHED
    assert bench.client.call(Trigger, f"{bench.name}/release", Trigger.Request()).success
    bench.until("HOLDING")
    bench.client.node.destroy_publisher(publisher)


def test_deactivation_in_motion_stops_the_arm_first(bench):
    bench.moving()
    count = len(bench.windows)
    assert bench.client.transition(f"{bench.name}/arm_gate", "deactivate")
    bench.until("INACTIVE")
    assert len(bench.windows) > count
    assert bench.rests()
    assert not bench.client.transition(f"{bench.name}/arm_gate", "deactivate")
    assert bench.client.transition(f"{bench.name}/arm_gate", "activate")
    bench.ready()


def test_a_second_publisher_of_commands_is_detected(bench):
    bench.moving()
    rival = bench.client.node.create_publisher(JointTrajectoryMessage, bench.command_topic, 10)
    assert bench.until("STOPPING", "another publisher on").code == GateStatus.OTHER_PUBLISHER
    bench.until("HOLDING")
    rejected = bench.status.rejected
    bench.plan(minimum_jerk(bench.positions[-1][1], START))
    bench.client.wait_for(lambda: bench.status.rejected > rejected, "the plan to be refused")
    bench.client.node.destroy_publisher(rival)
    bench.ready()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_motion_stops_the_arm_before_the_process_ends(start, client, number):
    bench = Bench(start, client, f"signal{int(number)}")
    bench.moving()
    count = len(bench.windows)
    bench.process.signal(number)
    client.wait_for(lambda: bench.process.process.poll() is not None, "the process to end", 10)
    assert bench.process.wait() == 0, bench.process.output
    client.wait_for(lambda: len(bench.windows) > count, "the stop")
    assert bench.rests() and np.abs(bench.positions[-1][1] - GOAL).max() > 0.02
    assert bench.wrong == [] and "Traceback" not in bench.process.output
    bench.close()


def test_when_the_gate_is_killed_in_motion_the_arm_stops(start, client):
    bench = Bench(start, client, "killed")
    bench.moving()
    bench.process.signal(signal.SIGKILL)
    died = bench.now()
    client.wait_for(lambda: bench.now() > died + 0.8, "the last window to run out")
    assert bench.rests()
    bench.close()


def test_windows_with_zero_stamps_reach_the_goal_in_the_controllers_clock(start, client):
    """Their stamps are 0 only until the controllers' clock is known from joint states."""
    bench = Bench(start, client, "unstamped", command_stamps="zero")
    bench.behind = 0.05
    bench.ready()
    bench.follow(minimum_jerk(START, GOAL), 6)
    bench.until("HOLDING")
    assert bench.rests()
    late = [came - to_seconds(m.header.stamp) for came, m in bench.windows]
    assert late and -0.05 < min(late) and max(late) < 0.2, "s by the controllers' clock"
    np.testing.assert_allclose(bench.positions[-1][1], GOAL, atol=1e-6)
    bench.close()


@pytest.mark.parametrize("kind", [*PEERS, pytest.param(JOINT_JOG, marks=with_control_msgs)])
def test_each_command_interface_reaches_the_goal_with_one_controller(start, client, kind):
    bench = Bench(start, client, f"by_{kind.split('/')[1]}", kind)
    bench.ready()
    assert reached(bench) < (0.05 if "servo" in kind else 1e-6)
    topics = {c.command_topic: c.type for c in read_robot(robot_file()).controllers}
    commanded = [t for t in topics if client.node.count_publishers(f"{bench.name}/{t}")]
    assert [topics[t] for t in commanded] == [kind] and len(topics) == 4
    bench.close()


@with_control_msgs
def test_joint_velocities_end_with_zeros_then_stop_and_a_timeout_stops_the_arm(start, client):
    bench = Bench(start, client, "jog", JOINT_JOG)
    bench.moving()
    assert bench.client.call(Trigger, f"{bench.name}/stop", Trigger.Request()).success
    bench.until("LATCHED", "stop")
    assert bench.rests() and np.abs(bench.positions[-1][1] - GOAL).max() > 0.02
    told = len(bench.windows)
    # The first ones may still be the zeros that end the way to the start.
    assert not any(bench.windows[-1][1].velocities) and any(any(m.velocities) for _, m in bench.windows)
    assert bench.rests() and len(bench.windows) == told
    bench.release()
    bench.moving()
    assert bench.client.transition(f"{bench.name}/arm_gate", "deactivate")
    bench.until("INACTIVE")
    assert bench.rests() and not any(bench.windows[-1][1].velocities)
    assert bench.client.transition(f"{bench.name}/arm_gate", "activate")
    bench.moving()
    bench.process.signal(signal.SIGKILL)
    assert bench.process.wait() != 0 and bench.rests() and any(bench.windows[-1][1].velocities)
    assert bench.wrong == []
    bench.close()


def test_joint_velocities_without_control_msgs_are_refused(start, client, monkeypatch, tmp_path):
    hide_package(monkeypatch, tmp_path, "control_msgs")
    bench = Bench(start, client, "lacking", JOINT_JOG)
    bench.description.publish(String(data=urdf()))
    bench.process.says("command_interface 'servo_joint_jog': ROS package control_msgs not found")
    assert client.state(f"{bench.name}/arm_gate") == "unconfigured" and "Traceback" not in bench.process.output
    bench.close()


def test_a_robot_in_its_own_namespace_is_commanded_there(start, client):
    bench = Bench(start, client, "elsewhere", robot_namespace="/shared/robot")
    bench.ready()
    assert reached(bench) < 1e-6 and bench.command_topic.startswith("/shared/robot/")
    bench.close()


def test_an_unknown_command_interface_is_refused_in_one_line(start):
    process = start(
        "jepa_ros.nodes.arm_gate", {"robot": "openarm", "command_interface": "telepathy"}, {"__ns": "/none"}
    )
    assert process.wait(30) == 2 and "expected one of" in process.output and "Traceback" not in process.output


def test_the_gate_waits_for_a_matching_robot_description(start, client):
    bench = Bench(start, client, "late")
    bench.process.says("waiting: no robot_description", 30.0)
    bench.description.publish(String(data=urdf().replace(JOINTS[2], "elbow")))
    bench.process.says(f"joint {JOINTS[2]}: expected in the robot description")
    assert bench.client.state(f"{bench.name}/arm_gate") == "unconfigured"
    bench.description.publish(String(data=urdf()))
    client.wait_for(lambda: client.transition(f"{bench.name}/arm_gate", "configure"), "the right description")
    assert client.transition(f"{bench.name}/arm_gate", "activate")
    bench.ready()
    bench.close()


def test_the_gate_never_loads_torch():
    code = (
        "import sys, jepa_ros.nodes.arm_gate.node; from jepa_ros.robot.motion import action_space, kinematics; "
        "assert not {'torch', 'mujoco'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
