"""Catalogue of the faults of a soak: how each is injected, what must follow, and the order in which they come.

A fault is an event from outside while the arm is in motion. ``must_stop`` tells whether it is a reason to stop: then
the gate must leave TRACKING, and the motion sent must end within ``stop_within`` s. Otherwise the arm continues.
"""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from lifecycle_msgs.msg import Transition

from jepa_ros.soak import fault_actions as corrupt
from jepa_ros.soak.fault_actions import FaultInjector

NODES = ("camera", "world_model", "planner", "simulator", "arm_gate")


@dataclass(frozen=True)
class Fault:
    """One kind of fault, at a node (``target``) or at none.

    inject(injector) starts it; the function that it may return is called every ``repeat_every`` s while the fault
    lasts. undo(injector) ends it. duration: s, (least, most). recover_within: s from its end until the arm tracks a
    plan again. ends_process: it ends a process, which is started again. must_be_refused: a service must refuse it.
    """

    kind: str
    inject: Callable[[FaultInjector], Callable[[], None] | None]
    undo: Callable[[FaultInjector], None] = lambda injector: None
    target: str = ""
    must_stop: bool = True
    stop_within: float = 2.0
    duration: tuple[float, float] = (0.8, 2.0)
    recover_within: float = 20.0
    ends_process: bool = False
    must_be_refused: bool = False
    repeat_every: float = 0.05

    def __str__(self) -> str:
        return f"{self.kind} {self.target}".strip()


def _signals(node: str) -> Iterator[Fault]:
    # A killed process may stay announced for its DDS lease (20 s), and one that starts on a busy machine first imports
    # torch or loads a scene.
    ending = {"target": node, "duration": (0.5, 0.5), "recover_within": 90.0, "ends_process": True}
    yield Fault("SIGKILL", lambda injector: injector.end_process(node, signal.SIGKILL), **ending)
    yield Fault("SIGTERM", lambda injector: injector.end_process(node, signal.SIGTERM), **ending)
    pause = partial(FaultInjector.pause_process, name=node)
    yield Fault("SIGSTOP", pause, FaultInjector.resume_processes, node, duration=(1.5, 3.0), recover_within=30.0)


def _images() -> Iterator[Fault]:
    for mode, kind in (
        ("drop", "camera drops out"),
        ("freeze", "frozen image"),
        ("stale", "stale stamps"),
        ("future", "stamps in the future"),
        ("truncate", "truncated images"),
        ("encoding", "unknown encoding"),
    ):
        set_mode = FaultInjector.set_image_mode
        yield Fault(kind, partial(set_mode, mode=mode), partial(set_mode, mode="pass"))


def _rogue_publishers() -> Iterator[Fault]:
    remove = FaultInjector.remove_rogue_publishers
    yield Fault("second publisher to the controller", FaultInjector.add_rogue_publisher, remove, stop_within=2.5)
    for kind, how, stops in (
        ("plan with NaN", corrupt.plan_with_nan, False),
        ("plan that ends in motion", corrupt.plan_ending_in_motion, False),
        ("plan from an old frame", corrupt.plan_from_old_frame, False),
        ("plan far beyond the limits", corrupt.plan_beyond_limits, True),
    ):
        publish = partial(FaultInjector.publish_plans, how=how)
        yield Fault(kind, publish, remove, must_stop=stops, stop_within=2.5)
    for kind, how in (
        ("joint_states with NaN", corrupt.joints_with_nan),
        ("joint_states that jump", corrupt.joints_jumping),
        ("joint_states without a joint", corrupt.joint_missing),
    ):
        yield Fault(kind, partial(FaultInjector.publish_joint_states, how=how), remove, stop_within=2.5)


def _operators() -> Iterator[Fault]:
    release = partial(FaultInjector.call_trigger, name="release")
    yield Fault("service stop, then release", partial(FaultInjector.call_trigger, name="stop"), release)
    press, unpress = (partial(FaultInjector.set_e_stop, pressed=pressed) for pressed in (True, False))
    yield Fault("e-stop on, then off", press, unpress)
    for node in NODES:
        if node != "simulator":  # it starts only if nothing else subscribes to the controllers' topics
            yield Fault(
                "deactivated, then activated",
                partial(FaultInjector.request_transition, name=node, transition=Transition.TRANSITION_DEACTIVATE),
                partial(FaultInjector.request_transition, name=node, transition=Transition.TRANSITION_ACTIVATE),
                node,
                stop_within=2.5,
                duration=(1.5, 2.5),
                recover_within=30.0,
            )
    for node, parameter, value in (
        ("camera", "max_age", -1.0),
        ("world_model", "max_samples", 10**9),
        ("planner", "deadline", 1e9),
        ("simulator", "timestep", 7.0),
        ("arm_gate", "speed_scale", 7.0),
    ):
        set_parameter = partial(FaultInjector.set_parameter, name=node, parameter=parameter, value=value)
        yield Fault("absurd parameter", set_parameter, target=node, must_stop=False, must_be_refused=True)


def _goals() -> Iterator[Fault]:
    # Cancelled repeatedly: the goal may just have been reached, and the next one sent.
    yield Fault("goal cancelled", lambda injector: injector.goals.cancel, stop_within=2.5)
    yield Fault("goal replaced", lambda injector: injector.goals.replace(), must_stop=False)


def catalogue() -> list[Fault]:
    """Return every fault once."""
    of_processes = (fault for node in NODES for fault in _signals(node))
    return [*of_processes, *_images(), *_rogue_publishers(), *_operators(), *_goals()]


def schedule(seed: int) -> Iterator[Fault]:
    """Yield faults without end, as shuffled decks that have every fault once.

    Two of three decks have no fault that ends a process, so that some processes live long enough to measure whether
    their memory grows.
    """
    rng = random.Random(seed)
    deck = 0
    while True:
        faults = [fault for fault in catalogue() if deck % 3 == 0 or not fault.ends_process]
        rng.shuffle(faults)
        yield from faults
        deck += 1
