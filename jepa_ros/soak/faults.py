"""What a soak does to the graph: every kind of fault, what it must lead to, and in which order they come.

A fault here is something that happens from outside while the arm is in motion. ``stops`` says whether it is a reason
to stop: then the gate must leave TRACKING and the motion sent must end within ``within`` s. Otherwise the arm goes on.
"""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from lifecycle_msgs.msg import Transition

from jepa_ros.soak import fault_actions as spoil
from jepa_ros.soak.fault_actions import Hands

NODES = ("camera", "world_model", "planner", "simulator", "arm_gate")


@dataclass(frozen=True)
class Fault:
    """One kind of fault at one node (or none).

    begin(hands) makes it; what it returns, if anything, is called every ``every`` s while it lasts. end(hands) undoes
    it. lasts: s, the least and the most. recover: s that may pass after its end until the arm tracks a plan again.
    restarts: it ends a process. refused: a service must answer no.
    """

    kind: str
    begin: Callable[[Hands], Callable[[], None] | None]
    end: Callable[[Hands], None] = lambda hands: None
    target: str = ""
    stops: bool = True
    within: float = 2.0
    lasts: tuple[float, float] = (0.8, 2.0)
    recover: float = 20.0
    restarts: bool = False
    refused: bool = False
    every: float = 0.05

    def __str__(self) -> str:
        return f"{self.kind} {self.target}".strip()


def _signals(node: str) -> Iterator[Fault]:
    """Faults of one process."""
    # A process that was killed may stay announced for as long as its DDS lease lasts (20 s), and what starts again on a
    # busy machine imports torch or loads a scene first.
    ends = {"target": node, "lasts": (0.5, 0.5), "recover": 90.0, "restarts": True}
    yield Fault("SIGKILL", lambda hands: hands.end(node, signal.SIGKILL), **ends)
    yield Fault("SIGTERM", lambda hands: hands.end(node, signal.SIGTERM), **ends)
    yield Fault("SIGSTOP", lambda hands: hands.freeze(node), Hands.thaw, node, lasts=(1.5, 3.0), recover=30.0)


def _images() -> Iterator[Fault]:
    for mode, kind in (
        ("drop", "camera drops out"),
        ("freeze", "frozen image"),
        ("stale", "stale stamps"),
        ("future", "stamps in the future"),
        ("truncate", "truncated images"),
        ("encoding", "unknown encoding"),
    ):
        yield Fault(kind, lambda hands, mode=mode: hands.images(mode), lambda hands: hands.images("pass"))


def _strangers() -> Iterator[Fault]:
    leave = Hands.strangers_leave
    yield Fault("second publisher to the controller", Hands.stranger, leave, within=2.5)
    for kind, how in (
        ("plan with NaN", spoil.not_finite),
        ("plan that ends in motion", spoil.in_motion_at_its_end),
        ("plan from an old frame", spoil.long_ago),
    ):
        yield Fault(kind, lambda hands, how=how: hands.plan(how), leave, stops=False)
    yield Fault("plan far beyond the limits", lambda hands: hands.plan(spoil.far_too_fast), leave, within=2.5)
    for kind, how in (
        ("joint_states with NaN", spoil.joints_not_finite),
        ("joint_states that jump", spoil.joints_elsewhere),
        ("joint_states without a joint", spoil.joint_missing),
    ):
        yield Fault(kind, lambda hands, how=how: hands.joint_states(how), leave, within=2.5)


def _people() -> Iterator[Fault]:
    release = partial(Hands.trigger, name="release")
    yield Fault("service stop, then release", partial(Hands.trigger, name="stop"), release)
    yield Fault("e-stop on, then off", partial(Hands.e_stop, on=True), partial(Hands.e_stop, on=False))
    for node in NODES:
        if node != "simulator":  # its company check is for a start; what hears the controllers would have to go first
            yield Fault(
                "deactivated, then activated",
                partial(Hands.transition, name=node, wanted=Transition.TRANSITION_DEACTIVATE),
                partial(Hands.transition, name=node, wanted=Transition.TRANSITION_ACTIVATE),
                node,
                within=2.5,
                lasts=(1.5, 2.5),
                recover=30.0,
            )
    for node, parameter, value in (
        ("camera", "max_age", -1.0),
        ("world_model", "max_samples", 10**9),
        ("planner", "deadline", 1e9),
        ("simulator", "timestep", 7.0),
        ("arm_gate", "speed_scale", 7.0),
    ):
        set_it = partial(Hands.set_parameter, name=node, parameter=parameter, value=value)
        yield Fault("absurd parameter", set_it, target=node, stops=False, refused=True)


def _goals() -> Iterator[Fault]:
    # Again and again: the goal may have been reached an instant before, and the next one begun.
    yield Fault("goal cancelled", lambda hands: hands.goals.cancel, within=2.5)
    yield Fault("goal replaced", lambda hands: hands.goals.replace(), stops=False)


def catalogue() -> list[Fault]:
    """Every fault once."""
    return [
        *(fault for node in NODES for fault in _signals(node)),
        *_images(),
        *_strangers(),
        *_people(),
        *_goals(),
    ]


def schedule(seed: int) -> Iterator[Fault]:
    """Faults without end, as shuffled decks: in each one every fault comes once.

    In two of three decks no process is ended, so that there are processes that live long enough to see whether their
    memory grows.
    """
    rng = random.Random(seed)
    deck = 0
    while True:
        faults = [fault for fault in catalogue() if deck % 3 == 0 or not fault.restarts]
        rng.shuffle(faults)
        yield from faults
        deck += 1
