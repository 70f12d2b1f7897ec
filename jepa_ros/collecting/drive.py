"""Takes a live arm through motions, by plans that the gate lets in; through pauses, stops and refusals."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from jepa_msgs.msg import GateStatus

from jepa_ros.collecting.graph_client import CollectGraph
from jepa_ros.collecting.live_report import LiveRecord
from jepa_ros.collecting.plan_driver import DrivenPlan, Driver, Motion

LIFE_EVERY = 0.08  # s between signs of life; the gate stops after 0.25 s without one
RESUME_AFTER = 0.6  # s for which inputs must have been healthy; a little more than the gate asks for
GONE_AFTER = 30.0  # s without a word from the gate after which it is not waited for any more
REST_WITHIN = 3.0  # s
TRY_AGAIN = 0.5  # s after a plan was refused
TRY_ANYWAY = 5.0  # s at rest after a stop; this gate may be content with less
PATIENCE = 10  # refusals in a row for which the same motion is tried again where the arm is held for a cause
RELEASE = "; it goes on once the service release was called"


class Stopped(Exception):
    """Somebody asked for the end."""


class Ended(Exception):
    """Collecting cannot go on; the text is one sentence."""


class Drive:
    """paused: until it is set to False again the arm rests. doing: what planner_status says of it.

    on_pause(why), on_resume(), on_refusal(why) tell of what happens. driver: None until begin.
    """

    def __init__(
        self,
        graph: CollectGraph,
        executor,
        record: LiveRecord,
        stop: threading.Event,
        on_pause: Callable[[str], None],
        on_resume: Callable[[], None],
        on_refusal: Callable[[str], None],
    ) -> None:
        self._graph, self._executor, self._record, self._stop = graph, executor, record, stop
        self._on_pause, self._on_resume, self._on_refusal = on_pause, on_resume, on_refusal
        self.driver: Driver | None = None
        self.paused, self.doing = False, ""
        self._ending = self._troubled = False
        self._life_at = self._sent_at = 0.0
        self._healthy_since: float | None = None
        self._refusal, self._refused = "", 0  # what for last; how often in a row

    def begin(self, driver: Driver) -> None:
        """From now on this is who makes plans for the gate."""
        self._counted, self._refusal, self.driver = self._counts(), self._graph.refusal, driver

    def settled(self) -> bool:
        """Whether the gate has held, with healthy inputs, for as long as it asks for."""
        return self._healthy_since is not None and time.monotonic() - self._healthy_since > RESUME_AFTER

    def end(self) -> None:
        """Bring the arm to rest, whatever has happened."""
        self._ending = True
        self.come_to_rest()

    def drive(self, motion: Motion, over: Callable[[], bool]) -> None:
        """Hand over plans of a motion until it is over. Raises Stopped and Ended, as all that waits here does."""
        graph, driver = self._graph, self.driver
        driver.begin()
        self._troubled = False
        while not over():
            self._spin()
            now = graph.now()
            if self.paused:
                self._pause(motion, over)
            elif self._troubled:  # what was promised is not what is followed: begin anew from rest
                self._begin_anew(motion, over)
            elif why := graph.trouble() or self._left(now):
                self._hold(why, motion, over)
            elif not motion.told and (start := driver.due(now)) is not None:
                speed = min(1.0, max(0.01, graph.gate.speed_scale))
                self._send(driver.plan(now, start, motion, graph.joints, speed))

    def come_to_rest(self) -> None:
        """Bring the arm to rest, where it is moving by our plans, and wait until it is."""
        graph, driver = self._graph, self.driver
        if graph.goal:  # the arm is the planner's now
            return
        if not graph.trouble() and (plan := driver.stop(graph.now())) is not None:
            self._send(plan)
        self.until(lambda: driver.at_rest(graph.now()) and (graph.holding or graph.trouble()), REST_WITHIN)

    # -- what interrupts a motion --------------------------------------------------------------------------------------

    def _left(self, now: float) -> str:
        """What the gate says where it follows no plan although there is one."""
        gate = self._graph.gate
        if gate.state != GateStatus.HOLDING or self.driver.at_rest(now + 0.1):
            return ""
        return gate.text if time.monotonic() - self._sent_at > 0.3 else ""

    def _pause(self, motion: Motion, over: Callable[[], bool]) -> None:
        """Rest until it is asked to go on."""
        self._on_pause("the service pause was called")
        self.come_to_rest()
        self.until(lambda: not self.paused or over())
        self._go_on(motion)

    def _hold(self, why: str, motion: Motion, over: Callable[[], bool]) -> None:
        """Wait until the gate would let plans in again."""
        graph, heard, held_since = self._graph, time.monotonic(), None
        self.driver.forget()
        self.until(lambda: graph.gate.state != GateStatus.STOPPING or not graph.gate_heard, REST_WITHIN)
        latched = graph.gate.state == GateStatus.LATCHED
        self._on_pause(_cause(why) + RELEASE * latched)

        def healed() -> bool:
            nonlocal held_since, heard, latched
            now = time.monotonic()
            if graph.gate.state == GateStatus.LATCHED and not latched:  # that, too
                latched = True
                self._on_pause(_cause(graph.gate.text) + RELEASE)
            heard = now if graph.gate_heard else heard
            if now - heard > GONE_AFTER:
                raise Ended(f"arm_gate has said nothing for {GONE_AFTER:g} s")
            held_since = (held_since or now) if graph.open else None
            return self.settled() or now - (held_since or now) > TRY_ANYWAY

        self.until(lambda: healed() or over())
        self._go_on(motion)

    def _begin_anew(self, motion: Motion, over: Callable[[], bool]) -> None:
        """A plan was refused or cut. What is left of the last one brings the arm to rest. That part is not tried again,
        as it would be refused again; unless the arm is held for a cause, which may go."""
        graph, again = self._graph, time.monotonic() + TRY_AGAIN
        self._refused += 1
        ready = (graph.gate.state, graph.gate.code) == (GateStatus.HOLDING, GateStatus.NONE)
        held = graph.open and not ready
        motion.interrupt(0 if held and self._refused < PATIENCE else self.driver.every)
        self.driver.forget()
        self.until(lambda: (graph.holding and time.monotonic() > again) or graph.trouble() or self.paused or over())
        self._troubled = False

    def _go_on(self, motion: Motion) -> None:
        motion.interrupt()
        self.driver.begin()
        self._troubled = False
        self._on_resume()

    def _send(self, plan: DrivenPlan) -> None:
        self._graph.send(plan)
        self._record.plans += 1
        self._sent_at = time.monotonic()

    # -- waiting -------------------------------------------------------------------------------------------------------

    def until(self, condition: Callable[[], object], timeout: float = float("inf")) -> bool:
        """Whether the condition has come true within timeout s."""
        end = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > end:
                return False
            self._spin()
        return True

    def wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        self.until(lambda: time.monotonic() > end)

    def _spin(self) -> None:
        """Handle what has come; say that we are alive; notice what ends this."""
        if self._stop.is_set() and not self._ending:
            raise Stopped
        self._executor.spin_once(timeout_sec=0.02)
        self._healthy_since = (self._healthy_since or time.monotonic()) if self._graph.healthy else None
        if self.driver is None:
            return
        if time.monotonic() - self._life_at >= LIFE_EVERY:
            self._life_at = time.monotonic()
            self._graph.alive(self.doing, self.driver.plan_id)
        self._count()
        if not self._ending and (why := self._graph.ended()):
            raise Ended(why)

    def _counts(self) -> dict[str, int]:
        gate = self._graph.gate
        return {"clipped": gate.clipped, "rejected": gate.rejected, "stops": gate.stops}

    def _count(self) -> None:
        """Add up what the gate counts; its own counts begin anew with each activation."""
        now, before = self._counts(), self._counted
        self._counted = now
        for name, n in now.items():
            more = n - before[name] if n >= before[name] else n
            self._record.gate[name] += more
            self._troubled |= bool(more) and name != "stops"
        if self._graph.gate.state == GateStatus.TRACKING and self._graph.gate.plan_id == self.driver.plan_id:
            self._refused = 0
        if self._graph.refusal != self._refusal:
            self._refusal = self._graph.refusal
            self._record.refusals.append(self._refusal)
            self._on_refusal(self._refusal)


def _cause(text: str) -> str:
    """The gate's text without the state in front of it."""
    state, colon, cause = text.partition(": ")
    return cause if colon and state in ("stopping", "holding", "latched", "waiting") else text
