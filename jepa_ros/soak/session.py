"""The time of a soak in which the graph is up: faults one after the other, and what was seen after each."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from jepa_ros.bringup.process_group import ProcessGroup
from jepa_ros.graph_clients.waiting import NodeLog, Stopped, handle_all, wait_until
from jepa_ros.reporting.progress import ProgressDisplay
from jepa_ros.sim.tasks.reach import GoalSet
from jepa_ros.soak.memory import MemoryLog
from jepa_ros.soak.report import SoakRecord

if TYPE_CHECKING:
    from jepa_ros.soak.faults import Fault
    from jepa_ros.soak.observer import Reaction

READY_WITHIN = 120.0  # s, for all nodes to come up on a busy machine
TRACK_WITHIN = 600.0  # s, for the arm to be in motion again before the next fault, on a machine with no time left
LOOK_EVERY = 0.02  # s
SAMPLE_EVERY = 5.0  # s between looks at the memory
PAUSE = (1.0, 3.0)  # s of undisturbed tracking between two faults
HELP_EVERY = 5.0  # s after which what undoes a fault is tried again
SAY_EVERY = 10.0  # s without motion after which the log gets to know why, again and again
ASK_AGAIN = 3.0  # s after which a request without an answer is sent again


class Soak:
    """``record`` is filled as it goes, so that it holds whatever happened. names: of the nodes under test."""

    def __init__(
        self,
        record: SoakRecord,
        plan: GoalSet,
        group: ProcessGroup,
        names: list[str],
        work: ProgressDisplay,
        log: NodeLog,
        stop: threading.Event,
    ) -> None:
        self._record, self._plan, self._group, self._names = record, plan, group, names
        self._work, self._log, self._stop = work, log, stop
        self._memory = MemoryLog()
        self._sampled = self._released = self._began = 0.0
        self._moved = time.time()
        self._fault_on = False
        self._placing, self._placed = None, 0.0
        self._pids = dict(group.pids)
        self._task = work.add("soak", round(60 * record.minutes))

    def run(self) -> None:
        """Raises GraphEnded or Stopped where it ends early."""
        import rclpy
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.signals import SignalHandlerOptions

        from jepa_ros.graph_clients.goal_client import GoalClient
        from jepa_ros.graph_clients.graph_watch import GraphWatch
        from jepa_ros.robot.config import load_robot
        from jepa_ros.soak.fault_actions import Hands
        from jepa_ros.soak.faults import schedule
        from jepa_ros.soak.goal_feeder import Goals
        from jepa_ros.soak.observer import Observer

        rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
        node = rclpy.create_node("soak")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(node)
        robot = load_robot(self._record.robot)
        self._watch = GraphWatch(node, self._names)
        self._seen = self._record.seen = Observer(node, robot)
        self._goals = Goals(GoalClient(node), [goal.image for goal in self._plan.goals])
        self._hands = Hands(node, self._group, robot, self._seen, self._goals)
        self._record.goals, self._record.lives = self._goals.count, self._memory.lives
        try:
            self._get_ready()
            self._began = self._record.began = time.time()
            self._soak(schedule(self._record.seed), random.Random(self._record.seed))
        finally:
            self._hands.thaw()  # a stopped process does not hear that it is to end
            self._record.seconds = time.time() - self._began if self._began else 0.0
            self._executor.remove_node(node)
            node.destroy_node()
            self._executor.shutdown(timeout_sec=1.0)
            rclpy.try_shutdown()

    # -- steps ---------------------------------------------------------------------------------------------------------

    def _get_ready(self) -> None:
        """All nodes active, images relayed, the arm at its first start."""
        seen = self._seen
        self._hands.images("pass")
        self._until(
            lambda: self._watch.all_active() and seen.gate is not None and seen.positions is not None,
            READY_WITHIN,
            lambda: "not ready: " + "; ".join(self._watch.problems() or ["the gate or the joints say nothing"]),
        )
        seen.hear_controller()
        self._place()
        self._until(lambda: self._placing is None, 30.0, lambda: "the simulator does not answer set_state")

    def _soak(self, faults: Iterator[Fault], rng: random.Random) -> None:
        end = self._began + 60.0 * self._record.minutes
        while self._record.most_faults is None or len(self._record.rows) < self._record.most_faults:
            self._track_for(rng.uniform(*PAUSE), end)
            if time.time() >= end:
                return
            self._fault(next(faults), rng)

    def _track_for(self, seconds: float, end: float) -> None:
        """Wait until the arm has tracked plans for so long without a break; the soak may end meanwhile."""
        since = time.time()

        def steady() -> bool:
            nonlocal since
            now = time.time()
            since = since if self._seen.tracking(now) else now
            return now - since > seconds or now >= end

        self._until(steady, TRACK_WITHIN, lambda: f"the arm tracks no plan ({self._state()})")

    def _fault(self, fault: Fault, rng: random.Random) -> None:
        """One fault, from its beginning to the arm's tracking a plan again."""
        self._log.write("soak", f"begins: {fault}")
        began, self._fault_on = time.time(), True
        row = {"t": began - self._began, "fault": fault.kind, "target": fault.target, "stops": fault.stops}
        row |= {"restarts": fault.restarts, "survived": None}
        self._record.rows.append(row)
        violations, exits = len(self._seen.violations), len(self._record.exits)
        reaction = self._seen.expect(began)
        repeat = fault.begin(self._hands)
        answer = self._hands.answer if fault.refused else None
        try:
            self._last(fault, rng.uniform(*fault.lasts), reaction, repeat, answer)
        finally:
            fault.end(self._hands)
            self._fault_on = False
        reaction.over = time.time()
        self._come_back(fault, reaction)
        self._seen.quiet = True
        self._judge(row, fault, reaction, answer)
        row["violations"] = len(self._seen.violations) - violations
        row["exits"] = [exit_["how"] for exit_ in self._record.exits[exits:]]
        clean = fault.kind != "SIGTERM" or "ended with code 0" in row["exits"]
        row["survived"] = row["caught"] and row["recovered"] and not row["violations"] and clean
        self._log.write("soak", f"{'survived' if row['survived'] else 'NOT SURVIVED'}: {row}")

    def _last(self, fault: Fault, seconds: float, reaction: Reaction, repeat, answer) -> None:
        """Let the fault last: for its time, and until the arm has been stopped or should have been."""
        sent = 0.0

        def over() -> bool:
            nonlocal sent
            now = time.time()
            if repeat is not None and now - sent > fault.every:
                repeat()
                sent = now
            noticed = reaction.left is not None and reaction.rest is not None if fault.stops else True
            noticed = noticed and (answer is None or answer.done())
            return now - reaction.since > (seconds if noticed else max(seconds, fault.within + 0.5))

        self._until(over, 60.0, lambda: f"{fault} does not end")

    def _come_back(self, fault: Fault, reaction: Reaction) -> None:
        """Wait until the arm tracks a plan again, and every node that was ended is there again."""
        helped = reaction.over

        def back() -> bool:
            nonlocal helped
            now = time.time()
            if now - helped > HELP_EVERY:
                helped = now
                fault.end(self._hands)
            there = reaction.back is not None and not self._hands.ended and self._placing is None
            return there or now - reaction.over > fault.recover

        self._until(back, fault.recover + 10.0, lambda: f"{fault}: no end of waiting")

    def _judge(self, row: dict, fault: Fault, reaction: Reaction, answer) -> None:
        """What of it was caught, and how soon; whether the arm came back."""
        began, over = reaction.since, reaction.over
        row["lasted_s"], row["gate_gap_ms"] = over - began, 1e3 * reaction.gap
        row["caught_ms"] = row["stop_ms"] = None
        if fault.stops:
            row["said"] = reaction.text
            row["caught_ms"] = None if reaction.left is None else 1e3 * max(0.0, reaction.left - began)
            row["stop_ms"] = None if reaction.rest is None else 1e3 * (reaction.rest - began)
            row["caught"] = None not in (reaction.left, reaction.rest) and reaction.rest - began <= fault.within
        else:
            row["caught"] = True
            if answer is not None:
                row["caught"] = answer.done() and not answer.result().results[0].successful
                row["said"] = answer.result().results[0].reason if answer.done() else "no answer"
        row["recovered"] = reaction.back is not None and not self._hands.ended
        row["recovered_s"] = reaction.back - over if row["recovered"] else None

    # -- helping, as a person would ------------------------------------------------------------------------------------

    def _help(self, now: float) -> None:
        """Release a latch, send goals, put a new simulator's arm to where goals can be reached from."""
        hands, seen = self._hands, self._seen
        for name, (when, pid) in list(hands.ended.items()):
            if name == "simulator":
                if seen.joints_at > when + 1.0 and self._group.pids[name] != pid:
                    del hands.ended[name]
                    seen.hear_controller()
                    self._place()
            elif self._group.pids[name] != pid:
                del hands.ended[name]
                if name == "planner":
                    self._goals.lost()
        self._look_at_placing(now)
        latched = seen.gate is not None and seen.gate.state == seen.gate.LATCHED
        if latched and not self._fault_on and not hands.e_stopped and now - self._released > 0.5:
            self._released = now
            hands.trigger("release")
        self._goals.look(now)

    def _place(self) -> None:
        goal = self._plan.goals[self._goals.index]
        self._placing, self._placed = self._watch.set_state(self._plan.joints, goal.start_q), time.time()

    def _look_at_placing(self, now: float) -> None:
        if self._placing is None:
            return
        if self._placing.done() and self._placing.result() is not None and self._placing.result().success:
            self._placing = None
        elif now - self._placed > ASK_AGAIN:
            self._place()

    # -- waiting -------------------------------------------------------------------------------------------------------

    def _spin(self) -> None:
        if self._stop.wait(LOOK_EVERY):
            raise Stopped
        handle_all(self._executor)
        now = time.time()
        self._group.poll()
        self._seen.look(now)
        self._help(now)
        self._say_why_nothing_moves(now)
        for name, pid in self._group.pids.items():
            if pid != self._pids[name]:
                self._pids[name] = pid
                self._record.restarts[name] += 1
        if now - self._sampled > SAMPLE_EVERY:
            self._sampled = now
            self._memory.sample({name: self._group.pids[name] for name in self._names}, now)
            self._record.load_averages.append(os.getloadavg()[0])
        if self._began:
            rows, record = self._record.rows, self._record
            bad = sum(row["survived"] is False for row in rows)
            note = f"fault {len(rows)}, {bad} not survived, {len(self._seen.violations)} violations"
            elapsed = min(now - self._began, 60 * record.minutes - 1)  # the last fault may take longer
            self._work.update(self._task, round(elapsed), f"{note}, {self._goals.count['reached']} goals reached")

    def _say_why_nothing_moves(self, now: float) -> None:
        if self._seen.tracking(now) or now - self._moved > SAY_EVERY:
            if now - self._moved > SAY_EVERY:
                self._log.write("soak", f"nothing moves: {self._state()}")
            self._moved = now

    def _until(self, condition: Callable[[], object], timeout: float, problem: Callable[[], str]) -> None:
        wait_until(condition, timeout, problem, self._spin)

    def _state(self) -> str:
        """What gate and planner say, and what else is known."""
        seen, now = self._seen, time.time()
        said = [f"gate: {seen.gate.text}" if seen.gate is not None else "the gate says nothing"]
        said += [f"planner: {seen.planner.text}" if seen.planner is not None else "the planner says nothing"]
        said += [f"last latent {now - seen.latent_at:.1f} s ago, last joint states {now - seen.joints_at:.1f} s ago"]
        return "; ".join(said + self._watch.problems())
