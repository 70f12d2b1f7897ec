"""Driving a live arm through motions with plans for the gate, through pauses, stops and rejected plans."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from jepa_msgs.msg import GateStatus

from jepa_ros.collecting.graph_client import GraphClient
from jepa_ros.collecting.live_report import LiveRecord
from jepa_ros.collecting.plan_driver import DrivenPlan, Motion, PlanDriver

STATUS_PERIOD_S = 0.08  # time between two planner_status; the gate stops after 0.25 s without one
RESUME_AFTER_S = 0.6  # time for which inputs must have been healthy, a little more than the gate's own
RESUME_ANYWAY_S = 5.0  # time at rest after a stop after which plans are tried again: this gate may accept older inputs
GATE_LOST_S = 30.0  # time without gate_status after which collecting ends
REST_TIMEOUT_S = 3.0
RETRY_S = 0.5  # time after a rejected plan until the next one
MAX_RETRIES = 10
"""Rejections in a row for which the same part of a motion is tried again while the arm is held for a cause."""
PLAN_TIMEOUT_S = 0.3  # time after a plan was sent in which the gate must follow it
AFTER_RELEASE = "; it resumes after the service release was called"


class CollectingStopped(Exception):
    """Collecting was interrupted by a signal."""


class CollectingEnded(Exception):
    """Collecting cannot continue; the text is one sentence."""


class Drive:
    """Executes motions of a PlanDriver on the live arm.

    paused: while it is True the arm rests. activity: text for planner_status. on_pause(why), on_resume() and
    on_rejection(why) report events. driver: None until `begin`.
    """

    def __init__(
        self,
        graph: GraphClient,
        executor,
        record: LiveRecord,
        stop: threading.Event,
        on_pause: Callable[[str], None],
        on_resume: Callable[[], None],
        on_rejection: Callable[[str], None],
    ) -> None:
        self._graph, self._executor, self._record, self._stop = graph, executor, record, stop
        self._on_pause, self._on_resume, self._on_rejection = on_pause, on_resume, on_rejection
        self.driver: PlanDriver | None = None
        self.paused, self.activity = False, ""
        self._ending = self._plan_failed = False
        self._status_at = self._sent_at = 0.0
        self._healthy_since: float | None = None
        self._rejection, self._retries = "", 0

    def begin(self, driver: PlanDriver) -> None:
        """Use this driver from now on, and publish planner_status for it."""
        self._counted, self._rejection, self.driver = self._gate_counts(), self._graph.rejection, driver

    def is_settled(self) -> bool:
        """Check whether the gate has held with healthy inputs for RESUME_AFTER_S."""
        return self._healthy_since is not None and time.monotonic() - self._healthy_since > RESUME_AFTER_S

    def end(self) -> None:
        """Bring the arm to rest, whatever has happened."""
        self._ending = True
        self.come_to_rest()

    def drive(self, motion: Motion, is_over: Callable[[], bool]) -> None:
        """Hand over plans of a motion until it is over.

        Raises CollectingStopped and CollectingEnded, as every method that waits.
        """
        graph, driver = self._graph, self.driver
        driver.begin_motion()
        self._plan_failed = False
        while not is_over():
            self._spin()
            now = graph.now()
            if self.paused:
                self._wait_paused(motion, is_over)
            elif self._plan_failed:  # the committed reference is not what the gate follows: restart from rest
                self._restart(motion, is_over)
            elif why := graph.fault() or self._not_followed(now):
                self._wait_for_gate(why, motion, is_over)
            elif not motion.fully_planned and (start := driver.next_start(now)) is not None:
                speed = min(1.0, max(0.01, graph.gate.speed_scale))
                self._send(driver.make_plan(now, start, motion, graph.joints, speed))

    def come_to_rest(self) -> None:
        """Stop the arm where it follows our plans, and wait until it is at rest."""
        graph, driver = self._graph, self.driver
        if graph.planner_goal:  # the arm is the planner's now
            return
        if not graph.fault() and (plan := driver.make_stop(graph.now())) is not None:
            self._send(plan)
        self.wait_until(lambda: driver.at_rest(graph.now()) and (graph.at_rest or graph.fault()), REST_TIMEOUT_S)

    # -- interruptions of a motion -------------------------------------------------------------------------------------

    def _not_followed(self, now: float) -> str:
        """Return the gate's text where it follows no plan although it was sent one."""
        gate = self._graph.gate
        if gate.state != GateStatus.HOLDING or self.driver.at_rest(now + 0.1):
            return ""
        return gate.text if time.monotonic() - self._sent_at > PLAN_TIMEOUT_S else ""

    def _wait_paused(self, motion: Motion, is_over: Callable[[], bool]) -> None:
        self._on_pause("the service pause was called")
        self.come_to_rest()
        self.wait_until(lambda: not self.paused or is_over())
        self._resume(motion)

    def _wait_for_gate(self, why: str, motion: Motion, is_over: Callable[[], bool]) -> None:
        """Wait until the gate may accept plans again."""
        graph, alive_at, held_since = self._graph, time.monotonic(), None
        self.driver.forget_plans()
        self.wait_until(lambda: graph.gate.state != GateStatus.STOPPING or not graph.gate_is_alive, REST_TIMEOUT_S)
        latched = graph.gate.state == GateStatus.LATCHED
        self._on_pause(_without_state(why) + AFTER_RELEASE * latched)

        def recovered() -> bool:
            nonlocal held_since, alive_at, latched
            now = time.monotonic()
            if graph.gate.state == GateStatus.LATCHED and not latched:
                latched = True
                self._on_pause(_without_state(graph.gate.text) + AFTER_RELEASE)
            alive_at = now if graph.gate_is_alive else alive_at
            if now - alive_at > GATE_LOST_S:
                raise CollectingEnded(f"no gate_status for {GATE_LOST_S:g} s")
            held_since = (held_since or now) if graph.is_open else None
            return self.is_settled() or now - (held_since or now) > RESUME_ANYWAY_S

        self.wait_until(lambda: recovered() or is_over())
        self._resume(motion)

    def _restart(self, motion: Motion, is_over: Callable[[], bool]) -> None:
        """Restart after a plan was rejected or cut, once the rest of the last plan has brought the arm to rest.

        The rejected part is skipped, since it would be rejected again; unless the gate holds the arm for a cause, which
        may go away.
        """
        graph, again = self._graph, time.monotonic() + RETRY_S
        self._retries += 1
        held_for_cause = graph.is_open and graph.gate.code != GateStatus.NONE
        motion.interrupt(0 if held_for_cause and self._retries < MAX_RETRIES else self.driver.every)
        self.driver.forget_plans()
        self.wait_until(
            lambda: (graph.at_rest and time.monotonic() > again) or graph.fault() or self.paused or is_over()
        )
        self._plan_failed = False

    def _resume(self, motion: Motion) -> None:
        motion.interrupt()
        self.driver.begin_motion()
        self._plan_failed = False
        self._on_resume()

    def _send(self, plan: DrivenPlan) -> None:
        self._graph.publish_plan(plan)
        self._record.plans += 1
        self._sent_at = time.monotonic()

    # -- waiting -------------------------------------------------------------------------------------------------------

    def wait_until(self, condition: Callable[[], object], timeout: float = float("inf")) -> bool:
        """Wait until the condition is true, at most timeout s; return whether it is."""
        end = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > end:
                return False
            self._spin()
        return True

    def wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        self.wait_until(lambda: time.monotonic() > end)

    def _spin(self) -> None:
        """Run callbacks, publish planner_status when it is due, and raise where collecting is over."""
        if self._stop.is_set() and not self._ending:
            raise CollectingStopped
        self._executor.spin_once(timeout_sec=0.02)
        self._healthy_since = (self._healthy_since or time.monotonic()) if self._graph.is_healthy else None
        if self.driver is None:
            return
        if time.monotonic() - self._status_at >= STATUS_PERIOD_S:
            self._status_at = time.monotonic()
            self._graph.publish_status(self.activity, self.driver.plan_id)
        self._update_counts()
        if not self._ending and (why := self._graph.end_reason()):
            raise CollectingEnded(why)

    def _gate_counts(self) -> dict[str, int]:
        gate = self._graph.gate
        return {"clipped": gate.clipped, "rejected": gate.rejected, "stops": gate.stops}

    def _update_counts(self) -> None:
        """Add up the gate's counters, which restart at zero with each activation of the gate."""
        now, before = self._gate_counts(), self._counted
        self._counted = now
        for name, n in now.items():
            more = n - before[name] if n >= before[name] else n
            self._record.gate[name] += more
            self._plan_failed |= bool(more) and name != "stops"
        if self._graph.gate.state == GateStatus.TRACKING and self._graph.gate.plan_id == self.driver.plan_id:
            self._retries = 0
        if self._graph.rejection != self._rejection:
            self._rejection = self._graph.rejection
            self._record.refusals.append(self._rejection)
            self._on_rejection(self._rejection)


def _without_state(text: str) -> str:
    """Return the gate's text without the state before its colon."""
    state, colon, cause = text.partition(": ")
    return cause if colon and state in ("stopping", "holding", "latched", "waiting") else text
