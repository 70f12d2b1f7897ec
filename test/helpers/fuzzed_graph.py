"""The running graph under fuzz: its endpoints as discovery shows them, bursts with back-pressure, and who watches."""

from __future__ import annotations

import time
from collections import Counter, defaultdict, deque
from functools import partial
from pathlib import Path

from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.msg import Parameter
from rcl_interfaces.srv import GetParameters, ListParameters, SetParameters
from rclpy._rclpy_pybind11 import RCLError
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from helpers.fuzz_requests import ROBOT, WORDS, place, requests_that_make_sense
from helpers.fuzzed_nodes import RECORDED, harmless
from helpers.message_fuzzer import Fuzzer, message_type, save
from helpers.nodes import ROOT, wait_for
from jepa_ros.graph_clients.goal_client import GoalClient
from jepa_ros.nodes.common.convert import to_seconds, trajectory_of
from jepa_ros.nodes.common.executor import make_executor
from jepa_ros.nodes.common.qos import LATCHED, LISTEN_NEWEST, SENSOR, make_qos
from jepa_ros.robot.gate.window_auditor import WindowAuditor
from jepa_ros.robot.motion.limits import JointLimits

PLACES = ((0.15, -0.40), (0.25, -0.30))
BRING_UP = {State.PRIMARY_STATE_UNCONFIGURED: (1, 3), State.PRIMARY_STATE_INACTIVE: (3,)}


class FuzzedGraph:
    """Processes of all nodes and a client that sends them anything. topics, services: type by (node, name).

    nodes: module, parameters and remaps by name."""

    def __init__(self, start, client, nodes: dict[str, tuple[str, dict, dict]]) -> None:
        self.client, self.node = client, client.node
        client._executor.remove_node(client.node)
        self._executor = make_executor()  # rclpy's own is too slow with a hundred clients
        self._executor.add_node(client.node)
        self._clients, self._publishers = {}, {}
        self.processes = {name: start(f"jepa_ros.nodes.{module}", *rest) for name, (module, *rest) in nodes.items()}
        self.sent, self.unanswered, self.brought_up = Counter(), Counter(), Counter()
        self.undecodable = self.unsent = 0
        self.rss = defaultdict(list)  # bytes by node
        self.values: dict[str, dict[str, str]] = {}  # diagnostics by status name
        self.latched = Counter()  # why the gate was
        self._ring = deque(maxlen=400)
        self._diagnostics = None
        self.hear_diagnostics(True)
        self.goals, self.goal, self.outcomes = GoalClient(self.node), None, []
        self.until(self.goals.is_ready, "the planner", 120.0)
        self.until(lambda: all(self.state(n) == State.PRIMARY_STATE_ACTIVE for n in nodes), "all nodes active")
        self.until(lambda: set(self._heard_by("/recorder")) >= RECORDED, "the recorder to hear all")
        self.topics, self.services = self._discover()
        self.valid = defaultdict(list)
        self._record()
        self._watch_controller()

    def close(self) -> None:
        """Before the client: an executor holds on to what it waits for."""
        self._executor.remove_node(self.node)
        self._executor.shutdown()

    # -- what there is -------------------------------------------------------------------------------------------------

    def _discover(self) -> tuple[dict, dict]:
        topics, services = {}, {}
        names = [f"{ns.rstrip('/')}/{n}" for n, ns in self.node.get_node_names_and_namespaces()]
        found = sorted(set(names) - {f"/{self.node.get_name()}"})
        assert set(found) == set(self.processes), found
        for full in found:
            space, _, name = full.rpartition("/")
            topics |= {(full, topic): kind for topic, kind in self._heard_by(full).items()}
            for service, kinds in self.node.get_service_names_and_types_by_node(name, space or "/"):
                services[full, service] = kinds[0]
        return topics, services

    def _heard_by(self, full: str) -> dict[str, str]:
        """Types by topic."""
        space, _, name = full.rpartition("/")
        return {t: kinds[0] for t, kinds in self.node.get_subscriber_names_and_types_by_node(name, space or "/")}

    def _record(self) -> None:
        """What healthy messages look like: what the graph says on the way to a goal, and requests that make sense."""
        subscriptions = []
        for (_, topic), kind in self.topics.items():
            latched = "robot_description" in topic
            qos = make_qos(5, latched=True) if latched else SENSOR
            held = self.valid[topic] = []
            subscriptions.append(self.node.create_subscription(message_type(kind), topic, partial(keep, held), qos))
        request = self.goals.send(place(PLACES[0]))
        self.until(lambda: request.outcome, "a first goal's end", 90.0)
        assert request.outcome.reached, request.outcome.reason
        for subscription in subscriptions:
            self.node.destroy_subscription(subscription)
        self.description = self.valid["/robot_description"][-1]
        self.parameters = {name: self._parameters(name) for name in self.processes}
        self.valid |= requests_that_make_sense(self.valid, self.parameters)
        names = {p for held in self.parameters.values() for p in held}
        self.words = [*sorted(names), *self.valid["/joint_states"][-1].name, *WORDS, self.valid["/latent"][-1].model_id]

    def _parameters(self, node: str) -> dict[str, Parameter]:
        """A node's parameters by name."""
        listed = self.call(ListParameters, f"{node}/list_parameters", ListParameters.Request()).result.names
        values = self.call(GetParameters, f"{node}/get_parameters", GetParameters.Request(names=listed)).values
        return {name: Parameter(name=name, value=value) for name, value in zip(listed, values, strict=True)}

    # -- who watches ---------------------------------------------------------------------------------------------------

    def _watch_controller(self) -> None:
        limits = JointLimits.from_robot(ROBOT, self.description.data)
        (controller,) = ROBOT.controllers
        assert tuple(controller.joints) == limits.names
        self.auditor, self.excused, self.anchored = WindowAuditor(limits), False, 0
        self.lied_to = False  # about where the joints are: then a motion from rest may start anywhere
        qos = LISTEN_NEWEST
        self.node.create_subscription(JointState, "/joint_states", self._on_joint_states, qos, raw=True)
        self.command_topic = f"/{controller.command_topic}"
        self.node.create_subscription(JointTrajectory, self.command_topic, self._on_window, 50)

    def _on_window(self, message: JointTrajectory, info: dict) -> None:
        if self.excused:  # the arm was put elsewhere, or these may be our own
            self.auditor.path = None
            return
        try:
            trajectory = trajectory_of(message)
        except ValueError as error:
            self.auditor.record_unreadable(str(error))
            return
        # As of when it was written: how late a window comes on a busy machine is not the gate's doing.
        now, violations = info["source_timestamp"] * 1e-9, len(self.auditor.violations)
        rested = self.auditor.path is None or self.auditor.is_at_rest(now)
        wrong = self.auditor.check_window(trajectory, to_seconds(message.header.stamp), now)
        if wrong.startswith("a step") and rested and (self.lied_to or self._is_where_the_arm_is(trajectory)):
            del self.auditor.violations[violations:]  # moved by others while it was held: a new motion starts there
            self.anchored += 1
        elif wrong:
            self.auditor.violations[-1] += f" ({self.gate_says('message')}; at rest before: {rested})"

    def _is_where_the_arm_is(self, trajectory) -> bool:
        measured = deserialize_message(self._measured, JointState)
        positions = dict(zip(measured.name, measured.position, strict=True))
        return all(abs(positions[n] - q) < 0.02 for n, q in zip(trajectory.names, trajectory.positions[0], strict=True))

    def _on_joint_states(self, raw: bytes) -> None:
        self._measured = raw

    def hear_diagnostics(self, wanted: bool) -> None:
        """Not while they are our own garbage."""
        if wanted:
            topic, callback = "/diagnostics", self._on_diagnostics
            self._diagnostics = self.node.create_subscription(DiagnosticArray, topic, callback, 20)
        else:
            self.node.destroy_subscription(self._diagnostics)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            self.values[status.name] = {pair.key: pair.value for pair in status.values} | {"message": status.message}

    def measure(self) -> None:
        """Note every node's resident memory."""
        for name, process in self.processes.items():
            pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
            self.rss[name].append(pages * 4096)

    # -- talking -------------------------------------------------------------------------------------------------------

    def spin(self, seconds: float) -> None:
        self._executor.spin_once(timeout_sec=seconds)

    def until(self, condition, what: str, timeout: float = 60.0):
        return wait_for(condition, what, timeout, spin=self.spin)

    def _client_of(self, kind: type, name: str):
        if name not in self._clients:
            self._clients[name] = self.node.create_client(kind, name)
        return self._clients[name]

    def call(self, kind: type, name: str, request, timeout: float = 20.0):
        """The response of a service that must answer."""
        client = self._client_of(kind, name)
        self.until(client.service_is_ready, f"service {name}", timeout)
        for _ in range(2):  # an answer that leaves before the server has found this client is lost
            future = client.call_async(request)
            end = time.monotonic() + timeout / 2
            while not future.done() and time.monotonic() < end:
                self.alive()
                self.spin(0.05)
            if future.done():
                return future.result()
            client.remove_pending_request(future)
        raise AssertionError(f"{name} did not answer; last sent is in {self.keep(name)}")

    def state(self, node: str) -> int:
        return self.call(GetState, f"{node}/get_state", GetState.Request()).current_state.id

    def alive(self) -> None:
        """Fails the test, and keeps what was sent last, where a node has ended."""
        for name, process in self.processes.items():
            if process.process.poll() is not None:
                tail = "\n".join(process.output.splitlines()[-40:])
                raise AssertionError(f"{name} ended ({process.process.poll()}); see {self.keep(name)}\n{tail}")

    def keep(self, name: str) -> Path:
        path = ROOT / "runs" / "faults" / f"fuzz_{name.strip('/').replace('/', '_')}.jsonl"
        save(path, list(self._ring))
        return path

    def publish(self, fuzzer: Fuzzer, node: str, topic: str) -> None:
        """One message to a topic: whole, or half of the time damaged in its bytes."""
        name = self.topics[node, topic]
        if topic not in self._publishers:
            self._publishers[topic] = self.node.create_publisher(message_type(name), topic, self._qos(topic))
            ready = self._publishers[topic].get_subscription_count
            self.until(ready, f"a subscriber of {topic}")
        raw = serialize_message(fuzzer.message(message_type(name), list(self.valid[topic])))
        raw = fuzzer.damage(raw) if fuzzer.rng.random() < 0.4 else raw
        self._ring.append((topic, name, raw))
        try:
            self._publishers[topic].publish(raw)
        except RCLError:  # too long for a type of fixed size, or a slow reader's lock was waited for in vain: not sent
            self.unsent += 1
            return
        for reader, other in self.topics:
            self.sent[reader, other] += other == topic

    def _qos(self, topic: str) -> QoSProfile:
        """What every subscription of a topic hears."""
        latched = any(
            info.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL
            for info in self.node.get_subscriptions_info_by_topic(topic)
        )
        return make_qos(10, latched=latched)

    def silence(self) -> None:
        """No publisher of ours is left; the true description is what counts again."""
        if "/robot_description" in self._publishers:
            self._publishers["/robot_description"].publish(self.description)
            self.spin(0.2)
        while self._publishers:
            self.node.destroy_publisher(self._publishers.popitem()[1])

    def call_fuzzed(self, fuzzer: Fuzzer, node: str, service: str):
        """(endpoint, client, future) of a request that was sent; what damaged bytes still decode to is sent as well."""
        name = self.services[node, service]
        kind = message_type(name)
        client = self._client_of(kind, service)
        request = fuzzer.message(kind.Request, self.valid.get(service, []))
        if fuzzer.rng.random() < 0.4:
            try:
                request = deserialize_message(fuzzer.damage(serialize_message(request)), kind.Request)
            except Exception:  # the middleware drops it, here as in the node
                self.undecodable += 1
        harmless(request)
        self._ring.append((service, name, serialize_message(request)))
        self.sent[node, service] += 1
        return (node, service), client, client.call_async(request)

    def answers(self, calls: list, timeout: float = 3.0) -> None:
        """Waits for the answers; those that do not come are counted."""
        end = time.monotonic() + timeout
        while not all(future.done() for *_, future in calls) and time.monotonic() < end:
            self.alive()
            self.spin(0.02)
        for endpoint, client, future in calls:
            if not future.done():
                self.unanswered[endpoint] += 1
                client.remove_pending_request(future)

    # -- keeping it going ----------------------------------------------------------------------------------------------

    def move(self) -> None:
        """Keeps goals coming, one after the other, and the gate released."""
        if self.goal is not None and self.goal.outcome:
            self.outcomes.append(self.goal.outcome)
            self.goal = None
        if self.goal is None:
            self.goal = self.goals.send(place(PLACES[len(self.outcomes) % 2]))
        if self.gate_says("state") == "LATCHED":
            self.latched[self.gate_says("message")] += 1
            self.excused = True  # after a release the reference is where the arm is
            self.call(Trigger, "/release", Trigger.Request())
            end = time.monotonic() + 0.3
            self.until(lambda: time.monotonic() > end, "the released gate's first window")
            self.excused = False

    def moves_on(self) -> None:
        """Once nobody else speaks, goals lead to motion again."""
        before = self.auditor.windows
        self.until(lambda: self.move() or self.auditor.windows > before, "the arm to move on")

    def gate_says(self, key: str) -> str:
        """The newest of the gate's diagnostics; empty before the first."""
        return next((v[key] for name, v in self.values.items() if name == "arm_gate: motion" and key in v), "")

    def bring_up(self) -> None:
        """A valid request may have taken a node down in order: up with it again."""
        for node in self.processes:
            state = self.state(node)
            assert state != State.PRIMARY_STATE_FINALIZED, f"{node} has ended its lifecycle; see {self.keep(node)}"
            for transition in BRING_UP.get(state, ()):
                request = ChangeState.Request(transition=Transition(id=transition))
                assert self.call(ChangeState, f"{node}/change_state", request).success, (node, transition)
                self.brought_up[node] += 1

    def recover(self) -> None:
        """E-stop off, latch released, the arm where it began, the camera seeing it."""
        latched = LATCHED
        off = self.node.create_publisher(Bool, "/e_stop", latched)
        self.until(lambda: off.get_subscription_count() > 1, "the gate to hear the e-stop")
        off.publish(Bool(data=False))
        self.call(Trigger, "/reset", Trigger.Request())
        self.until(lambda: self.call(Trigger, "/release", Trigger.Request()).success, "the gate's release")
        self.node.destroy_publisher(off)

    def restore(self) -> None:
        """Every parameter as it was."""
        for node, before in self.parameters.items():
            now = self._parameters(node)
            wrong = [held for name, held in before.items() if now.get(name) != held]
            if wrong:
                request = SetParameters.Request(parameters=wrong)
                results = self.call(SetParameters, f"{node}/set_parameters", request).results
                assert all(r.successful for r in results), (node, results)


def keep(held: list, message) -> None:
    """The newest few messages."""
    held.append(message)
    del held[:-6]
