"""Simulated time that is zero, stands still, or jumps; clock, pictures and joint states are relayed with its fault."""

import threading
import time

import pytest
import rclpy
from jepa_msgs.msg import Action, GateStatus
from rclpy.executors import SingleThreadedExecutor
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from helpers.fault_graph import AT_REST, Graph
from helpers.graph_listener import COMMANDS, Relay
from jepa_ros.nodes.common.convert import to_ns, to_stamp

BEGIN = 1000 * 10**9  # ns, when simulated time begins
MOST_HZ = 40  # windows a second: 20 while a plan is followed, and one more for each plan that is taken


class Time:
    """Relays of all that is stamped. shift: ns that are added to stamps. zero: the clock says 0. truly: s, the time by
    which the simulator's controllers go, and which windows are brought back to. A thread of its own passes all on
    without delay, whatever the test does."""

    def __init__(self):
        self.node = rclpy.create_node("time_relay")
        self.shift, self.zero, self.truly = BEGIN, False, 0.0
        self._shifts = [BEGIN]
        self._relays = [
            Relay(self, Clock, "/clock_true", "/clock"),
            Relay(self, JointState, "joint_states_true", "joint_states"),
            Relay(self, JointTrajectory, "windows", COMMANDS),
        ]
        for relay, change in zip(self._relays, (self._clock, self.shifted, self._brought_back), strict=True):
            relay.change = change
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._executor.spin, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._executor.shutdown()
        self._thread.join()
        self.node.destroy_node()

    def _clock(self, message):
        self.truly = to_ns(message.clock) * 1e-9
        message.clock = to_stamp(0 if self.zero else to_ns(message.clock) + self.shift)
        return [message]

    def shifted(self, message):
        message.header.stamp = to_stamp(to_ns(message.header.stamp) + self.shift)
        return [message]

    def _brought_back(self, message):
        """A window that was sent before a jump arrives after it: it means the time of before."""
        stamp = to_ns(message.header.stamp)
        true = min((stamp - shift for shift in self._shifts), key=lambda t: abs(t * 1e-9 - self.truly))
        message.header.stamp = to_stamp(max(true, 0))
        return [message]

    def jump(self, seconds: float) -> None:
        self.shift += int(seconds * 1e9)
        self._shifts.append(self.shift)


@pytest.fixture(scope="module")
def graph(start, client):
    clock = Time()
    clock.zero = True
    early: dict = {}

    def before(graph) -> None:
        """Every node is active and time is still zero: nothing may be sent."""
        for node in ("camera", "world_model", "planner", "arm_gate"):
            graph.processes[node].says("active", 120.0)
        client.wait_for(lambda: any("camera: frames" in w for _, w in graph.words), "the camera's diagnostics")
        client.spin(1.0)  # what may not be sent would come within a tenth of that
        early.update(windows=len(graph.windows), states=[m.state for *_, m in graph.gate])
        early.update(latents=len(graph.latents), causes=[w for _, w in graph.words])
        clock.zero = False

    sim_time = {node: {"use_sim_time": True} for node in ("camera", "world_model", "planner", "arm_gate")}
    sim_time["camera"] |= {"frozen_after": 0.0, "transport": "raw"}
    sim_time["simulator"] = {"publish_clock": True}
    sim_time["arm_gate"] |= {"resume_after": 1.5}  # what was late for a process that stood still has come by then
    remaps = {"simulator": {"/clock": "/clock_true", "joint_states": "joint_states_true"}}
    remaps["arm_gate"] = {COMMANDS: "windows"}
    graph = Graph(start, client, sim_time, remaps, pictures=clock.shifted, before=before)
    graph.time, graph.early = clock, early
    graph.clock = lambda then: clock.truly
    graph.executed = client.collect(Action, "executed", 50)
    yield graph
    clock.close()


@pytest.fixture
def arm(graph, measured):
    yield from graph.between_rows(measured)


def windows_hz(arm, since: float, seconds: float) -> float:
    return len([t for t, _ in arm.windows if since <= t < since + seconds]) / seconds


def released(arm) -> None:
    """By a person, where the gate asks for one."""
    arm.client.wait_for(lambda: arm.gate_state != GateStatus.STOPPING, "the end of the stop", 5.0)
    if arm.gate_state == GateStatus.LATCHED:
        arm.client.wait_for(lambda: arm.speed < AT_REST, "a standing arm", 5.0)
        assert arm.client.call(Trigger, "release", Trigger.Request()).success


@pytest.mark.fault(6)
def test_no_command_before_the_first_clock_message_and_no_burst_after_it(arm):
    assert arm.early["latents"] == 0 and set(arm.early["states"]) <= {GateStatus.INACTIVE}
    assert any("camera: frames" in cause and "clock" in cause for cause in arm.early["causes"]), arm.early["causes"]
    begun = time.time()
    arm.moving()
    arm.client.spin(1.0)
    assert windows_hz(arm, begun, time.time() - begun) < MOST_HZ


@pytest.mark.fault(6)
def test_the_arm_holds_while_the_simulation_is_paused(arm, measured):
    """Nothing ages while time stands still; the gate's watchdog notices all the same. Its stop may come late to a
    process that stood still: then the arm comes to rest by what was sent before, elsewhere than it was told to."""
    arm.moving()
    fault = time.time()
    arm.freeze("simulator")
    arm.says("arm_gate: stopping: the clock stands still", fault, 5.0)
    arm.client.spin(1.0)
    sent = len(arm.windows)
    arm.client.spin(0.5)
    assert len(arm.windows) == sent, "windows are sent although time stands still"
    healed = time.time()
    arm.thaw("simulator")
    held = (GateStatus.HOLDING, GateStatus.LATCHED)
    arm.client.wait_for(lambda: arm.gate_state in held and arm.rests, "an arm at rest", 5.0)
    moved = [s.received for s in arm.samples if s.received >= healed and abs(s.qd).max() > 0.02]
    measured["stop_ms"] = 1e3 * (max(moved, default=healed) - healed)
    released(arm)
    arm.in_motion()
    assert windows_hz(arm, healed, time.time() - healed) < MOST_HZ


@pytest.mark.parametrize(
    ("seconds", "cause"),
    [
        pytest.param(-500.0, "the clock went back", marks=pytest.mark.fault(5), id="back"),
        # By then all that was sent is over; where the arm has not come to its end yet, that is a following error.
        pytest.param(500.0, "(no (latent|joint_states) for|following error)", marks=pytest.mark.fault(6), id="forward"),
    ],
)
def test_a_time_jump_stops_the_arm_and_starts_a_new_episode(arm, measured, seconds, cause):
    episodes = int(arm.diagnostic("camera: frames")["episodes"])
    arm.moving()
    seen, fault = len(arm.executed), time.time()
    arm.time.jump(seconds)
    arm.client.wait_for(lambda: arm.gate_state != GateStatus.TRACKING, "the gate's stop", 5.0)
    arm.says(f"arm_gate: (stopping|holding|latched): {cause}", fault)
    at_rest = lambda: [s.received for s in arm.samples if s.received >= fault and abs(s.qd).max() < AT_REST]  # noqa: E731
    arm.client.wait_for(at_rest, "an arm at rest", 5.0)  # not for long, where nobody has to release it
    measured["stop_ms"] = 1e3 * (at_rest()[0] - fault)
    released(arm)
    arm.in_motion()
    passed = time.time() - fault
    assert windows_hz(arm, fault, passed) < MOST_HZ
    assert len(arm.executed) - seen < 10 * passed + 20, "ticks of the time that was jumped over"
    if seconds < 0:
        assert int(arm.diagnostic("camera: frames")["episodes"]) == episodes + 1


@pytest.mark.fault(5)
def test_a_simulator_reset_in_motion_is_detected_as_a_jump_of_the_arm(arm, measured):
    arm.moving()
    fault = time.time()
    assert arm.client.call(Trigger, "reset", Trigger.Request()).success
    arm.client.wait_for(lambda: arm.gate_state in (GateStatus.HOLDING, GateStatus.LATCHED), "the gate's stop", 5.0)
    arm.says("arm_gate: stopping: (joint_states: .* jumped|following error)", fault)
    arm.client.wait_for(lambda: arm.rests, "an arm at rest", 5.0)
    moved = [s.received for s in arm.samples if s.received >= fault and abs(s.qd).max() > 0.02]
    measured["stop_ms"] = 1e3 * (max(moved, default=fault) - fault)
    released(arm)
    arm.in_motion()
