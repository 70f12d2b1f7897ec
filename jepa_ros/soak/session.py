"""Session of a soak: while the graph is up, injects one fault after the other and records the reaction to each."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator

from rclpy.task import Future

from jepa_ros.bringup.process_group import ProcessGroup
from jepa_ros.graph_clients.goal_client import GoalClient
from jepa_ros.graph_clients.session import NodeLog, RclpySession, Stopped, wait_until
from jepa_ros.reporting.progress import ProgressDisplay
from jepa_ros.robot.config import load_robot
from jepa_ros.sim.tasks import GoalSet
from jepa_ros.soak.faults import Fault, FaultInjector, schedule
from jepa_ros.soak.goal_feeder import GoalFeeder
from jepa_ros.soak.memory import MemoryLog
from jepa_ros.soak.observer import Observer, Reaction
from jepa_ros.soak.report import SoakRecord

READY_TIMEOUT = 120.0  # s until all nodes are active, on a busy machine
TRACKING_TIMEOUT = 600.0  # s until the arm moves again before the next fault, on an overloaded machine
SPIN_PERIOD = 0.02  # s
MEMORY_PERIOD = 5.0  # s between memory samples
PAUSE = (1.0, 3.0)  # s of undisturbed tracking between two faults, (least, most)
UNDO_PERIOD = 5.0  # s after which undoing a fault is repeated
REASON_PERIOD = 10.0  # s without motion after which the reason is logged, repeatedly
PLACE_TIMEOUT = 3.0  # s after which an unanswered set_state is repeated


class SoakSession:
    """Runs the faults of a soak; ``record`` is filled while it runs, so that it is complete whatever happens.

    names: of the nodes under test.
    """

    def __init__(
        self,
        record: SoakRecord,
        goal_set: GoalSet,
        group: ProcessGroup,
        names: list[str],
        display: ProgressDisplay,
        log: NodeLog,
        stop: threading.Event,
    ) -> None:
        self._record, self._goal_set, self._group, self._names = record, goal_set, group, names
        self._display, self._log, self._stop = display, log, stop
        self._memory = MemoryLog()
        self._sampled_at = self._released_at = self._began = 0.0
        self._moved_at = time.time()
        self._fault_active = False
        self._placing, self._placed_at = None, 0.0  # the answer of set_state that is awaited
        self._pids = dict(group.pids)
        self._task = display.add("soak", round(60 * record.minutes))

    def run(self) -> None:
        """Inject faults for the time of the record. Raises GraphEnded or Stopped if it ends early."""
        robot = load_robot(self._record.robot)
        with RclpySession("soak") as self._session:
            node = self._session.node
            self._observer = self._record.observer = Observer(node, robot, self._names)
            self._goals = GoalFeeder(GoalClient(node), [goal.image for goal in self._goal_set.goals])
            self._injector = FaultInjector(node, self._group, robot, self._observer, self._goals)
            self._record.goals, self._record.processes = self._goals.outcomes, self._memory.processes
            try:
                self._get_ready()
                self._began = self._record.began = time.time()
                self._inject_faults(schedule(self._record.seed), random.Random(self._record.seed))
            finally:
                self._injector.resume_processes()  # a paused process would not receive the signal to end
                self._record.seconds = time.time() - self._began if self._began else 0.0

    # -- steps ---------------------------------------------------------------------------------------------------------

    def _get_ready(self) -> None:
        """Wait until all nodes are active, images are forwarded, and the arm is at its first start."""
        observer = self._observer
        self._injector.set_image_mode("pass")
        self._wait(
            lambda: observer.all_active() and observer.gate is not None and observer.positions is not None,
            READY_TIMEOUT,
            lambda: "not ready: " + "; ".join(observer.describe_inactive() or ["no gate_status or joint_states"]),
        )
        observer.subscribe_controller()
        self._place_arm()
        self._wait(lambda: self._placing is None, 30.0, lambda: "no answer from the simulator's set_state")

    def _inject_faults(self, faults: Iterator[Fault], rng: random.Random) -> None:
        end = self._began + 60.0 * self._record.minutes
        while self._record.most_faults is None or len(self._record.rows) < self._record.most_faults:
            self._track_for(rng.uniform(*PAUSE), end)
            if time.time() >= end:
                return
            self._test_fault(next(faults), rng)

    def _track_for(self, seconds: float, end: float) -> None:
        """Wait until the arm has tracked plans for so long without interruption, or the soak is over."""
        since = time.time()

        def is_steady() -> bool:
            nonlocal since
            now = time.time()
            if not self._observer.is_tracking(now):
                since = now
            return now - since > seconds or now >= end

        self._wait(is_steady, TRACKING_TIMEOUT, lambda: f"the arm tracks no plan ({self._describe_state()})")

    def _test_fault(self, fault: Fault, rng: random.Random) -> None:
        """Inject one fault, wait until the arm tracks a plan again, and record the reaction."""
        self._log.write("soak", f"begins: {fault}")
        began, self._fault_active = time.time(), True
        row = {"t": began - self._began, "fault": fault.kind, "target": fault.target, "stops": fault.must_stop}
        row |= {"restarts": fault.ends_process, "survived": None}
        self._record.rows.append(row)
        violations, exits = len(self._observer.violations), len(self._record.exits)
        reaction = self._observer.begin_fault(began)
        repeat = fault.inject(self._injector)
        response = self._injector.response if fault.must_be_refused else None
        try:
            self._hold_fault(fault, rng.uniform(*fault.duration), reaction, repeat, response)
        finally:
            fault.undo(self._injector)
            self._fault_active = False
        reaction.ended = time.time()
        self._wait_for_recovery(fault, reaction)
        self._observer.is_undisturbed = True
        self._record_reaction(row, fault, reaction, response)
        row["violations"] = len(self._observer.violations) - violations
        row["exits"] = [exit_["how"] for exit_ in self._record.exits[exits:]]
        is_clean = fault.kind != "SIGTERM" or "ended with code 0" in row["exits"]
        row["survived"] = row["caught"] and row["recovered"] and not row["violations"] and is_clean
        self._log.write("soak", f"{'survived' if row['survived'] else 'NOT SURVIVED'}: {row}")

    def _hold_fault(
        self, fault: Fault, seconds: float, reaction: Reaction, repeat: Callable | None, response: Future | None
    ) -> None:
        """Let the fault last for its time, and until the arm has been stopped or should have been."""
        repeated_at = 0.0

        def is_over() -> bool:
            nonlocal repeated_at
            now = time.time()
            if repeat is not None and now - repeated_at > fault.repeat_every:
                repeat()
                repeated_at = now
            has_reacted = not fault.must_stop or None not in (reaction.stopped_tracking, reaction.at_rest)
            has_reacted = has_reacted and (response is None or response.done())
            return now - reaction.began > (seconds if has_reacted else max(seconds, fault.stop_within + 0.5))

        self._wait(is_over, 60.0, lambda: f"{fault} does not end")

    def _wait_for_recovery(self, fault: Fault, reaction: Reaction) -> None:
        """Wait until the arm tracks a plan again and every node that was ended is back, or the time for it is over."""
        undone_at = reaction.ended

        def is_over() -> bool:
            nonlocal undone_at
            now = time.time()
            if now - undone_at > UNDO_PERIOD:
                undone_at = now
                fault.undo(self._injector)
            is_complete = not self._injector.restarting and self._placing is None
            is_recovered = reaction.tracking_again is not None and is_complete
            return is_recovered or now - reaction.ended > fault.recover_within

        self._wait(is_over, fault.recover_within + 10.0, lambda: f"{fault}: no recovery")

    def _record_reaction(self, row: dict, fault: Fault, reaction: Reaction, response: Future | None) -> None:
        """Record whether and how soon the fault was caught, and whether the arm recovered."""
        began = reaction.began
        row["lasted_s"], row["gate_gap_ms"] = reaction.ended - began, 1e3 * reaction.longest_gap
        row["caught_ms"] = row["stop_ms"] = None
        if fault.must_stop:
            stopped, at_rest = reaction.stopped_tracking, reaction.at_rest
            row["code"], row["said"] = reaction.code, reaction.text
            row["caught_ms"] = None if stopped is None else 1e3 * max(0.0, stopped - began)
            row["stop_ms"] = None if at_rest is None else 1e3 * (at_rest - began)
            row["caught"] = None not in (stopped, at_rest) and at_rest - began <= fault.stop_within
        elif response is not None:
            row["caught"] = response.done() and not response.result().results[0].successful
            row["said"] = response.result().results[0].reason if response.done() else "no answer"
        else:
            row["caught"] = True
        row["recovered"] = reaction.tracking_again is not None and not self._injector.restarting
        row["recovered_s"] = reaction.tracking_again - reaction.ended if row["recovered"] else None

    # -- assistance, as an operator would give it ----------------------------------------------------------------------

    def _assist(self, now: float) -> None:
        """Release a latch, send goals, and place the arm of a new simulator where goals can be reached from."""
        injector, observer = self._injector, self._observer
        for name, (when, pid) in list(injector.restarting.items()):
            if self._group.pids[name] == pid or (name == "simulator" and observer.joints_at <= when + 1.0):
                continue
            del injector.restarting[name]
            if name == "simulator":
                observer.subscribe_controller()
                self._place_arm()
            elif name == "planner":
                self._goals.give_up()
        self._check_placing(now)
        is_latched = observer.gate is not None and observer.gate.state == observer.gate.LATCHED
        may_release = not self._fault_active and not injector.e_stop_pressed
        if is_latched and may_release and now - self._released_at > 0.5:
            self._released_at = now
            injector.call_trigger("release")
        self._goals.update(now)

    def _place_arm(self) -> None:
        goal = self._goal_set.goals[self._goals.index]
        self._placing, self._placed_at = self._observer.set_state(self._goal_set.joints, goal.start_q), time.time()

    def _check_placing(self, now: float) -> None:
        if self._placing is None:
            return
        if self._placing.done() and self._placing.result() is not None and self._placing.result().success:
            self._placing = None
        elif now - self._placed_at > PLACE_TIMEOUT:
            self._place_arm()

    # -- waiting -------------------------------------------------------------------------------------------------------

    def _wait(self, condition: Callable[[], object], timeout: float, problem: Callable[[], str]) -> None:
        wait_until(condition, timeout, problem, self._spin)

    def _spin(self) -> None:
        if self._stop.wait(SPIN_PERIOD):
            raise Stopped
        self._session.handle_pending()
        now = time.time()
        self._group.poll()
        self._observer.update(now)
        self._assist(now)
        self._log_standstill(now)
        for name, pid in self._group.pids.items():
            if pid != self._pids[name]:
                self._pids[name] = pid
                self._record.restarts[name] += 1
        if now - self._sampled_at > MEMORY_PERIOD:
            self._sampled_at = now
            self._memory.sample({name: self._group.pids[name] for name in self._names}, now)
            self._record.load_averages.append(os.getloadavg()[0])
        if self._began:
            rows, record = self._record.rows, self._record
            failed = sum(row["survived"] is False for row in rows)
            note = f"fault {len(rows)}, {failed} not survived, {len(self._observer.violations)} violations"
            elapsed = min(now - self._began, 60 * record.minutes - 1)  # the last fault may take longer
            self._display.update(self._task, round(elapsed), f"{note}, {self._goals.outcomes['reached']} goals reached")

    def _log_standstill(self, now: float) -> None:
        if self._observer.is_tracking(now):
            self._moved_at = now
        elif now - self._moved_at > REASON_PERIOD:
            self._log.write("soak", f"no motion: {self._describe_state()}")
            self._moved_at = now

    def _describe_state(self) -> str:
        """Return the reports of gate and planner, and what is missing."""
        observer, now = self._observer, time.time()
        parts = [f"gate: {observer.gate.text}" if observer.gate is not None else "no gate_status received"]
        parts += [f"planner: {observer.planner.text}" if observer.planner is not None else "no planner_status received"]
        parts += [f"last latent {now - observer.latent_at:.1f} s ago"]
        parts += [f"last joint_states {now - observer.joints_at:.1f} s ago"]
        return "; ".join(parts + observer.describe_inactive())
