"""Data types of the motion gate: states, codes, settings, inputs and outputs."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from enum import IntEnum
from typing import NamedTuple

import numpy as np

from jepa_ros.errors import InputError
from jepa_ros.robot.motion.path import Path
from jepa_ros.robot.motion.trajectory import JointTrajectory


class GateState(IntEnum):
    """States of the gate, numbered as in jepa_msgs/GateStatus; transitions are in `gate.py`."""

    INACTIVE = 0
    HOLDING = 1
    TRACKING = 2
    STOPPING = 3
    LATCHED = 4


class GateCode(IntEnum):
    """Causes for which the gate holds, stops, latches or rejects; numbers as in jepa_msgs/GateStatus.

    The hundreds are groups: 1 inputs, 2 plans, 3 motion, 4 operator, 5 controllers and node.
    """

    NONE = 0  # no fault: a plan is followed, or the arm holds and waits for one

    NO_JOINT_STATES = 101  # no joint_states have been received yet
    JOINT_STATES_STALE = 102  # no joint_states within joint_timeout, or stamps older than joint_stamp_timeout
    JOINT_STATES_IN_FUTURE = 103  # joint_states are stamped further in the future than skew
    JOINT_STATES_INVALID = 104  # joint missing or named twice, values missing or not finite
    JOINT_STATES_JUMPED = 105  # a joint moved further between two samples than its velocity limit explains
    JOINT_STATES_FROZEN = 106  # joint_states do not change while the reference moves
    NO_LATENT = 111  # no latent has been received yet
    LATENT_STALE = 112  # no latent within latent_timeout, or stamps older than latent_stamp_timeout
    LATENT_IN_FUTURE = 113  # latents are stamped further in the future than skew
    PLANNER_SILENT = 121  # neither a plan nor a planner_status within planner_timeout
    PLAN_EXPIRED = 122  # the plan followed reached its valid_until and no newer one was received
    PLAN_TIMEOUT = 123  # no new plan within plan_timeout
    CLOCK_STOPPED = 131  # the ROS clock (simulated time) stands still
    CLOCK_WENT_BACK = 132  # the ROS clock jumped backwards
    INPUTS_RECOVERING = 141  # inputs are healthy again, but not yet for resume_after

    PLAN_INVALID = 201  # points missing, not finite, implausibly large or with times that do not increase
    PLAN_WRONG_JOINTS = 202  # the plan names other joints than the robot's
    PLAN_TOO_LONG = 203  # the plan lasts longer than plan_max or has too many points
    PLAN_ENDS_MOVING = 204  # the plan's last point is not at rest
    PLAN_LATE = 205  # hand-over, source frame or validity lie too far in the past
    PLAN_IN_FUTURE = 206  # hand-over or source frame lie too far in the future
    PLAN_OUT_OF_ORDER = 207  # the plan was made from an older frame than the plan being followed
    PLAN_GROSS_BREACH = 208  # the plan exceeds the joint limits by far; latches where latch_on_gross is set
    PLAN_STARTS_ELSEWHERE = 209  # the plan starts further than start_tolerance from the reference or the arm
    PLAN_NOT_JOINABLE = 210  # no motion within the limits joins the reference and the plan
    PLAN_TOO_CLOSE = 211  # the plan leads into a collision, a keep-out box or out of the workspace
    PLAN_NO_STOP = 212  # no stop within the limits from where the plan leads
    ARM_DISPLACED = 213  # the arm is not where it is held, and does not stand still there yet

    FOLLOWING_ERROR = 301  # the measured position is further than following_error from the reference; latches
    TOO_CLOSE = 302  # in motion, an obstacle or another link came nearer than the margin
    LIMITS_REACHED = 303  # the plan cannot be followed further within the limits
    ARM_MOVING = 304  # release rejected: the arm is still moving or being stopped

    STOP_SERVICE = 401  # the service `stop` was called; latches
    E_STOP = 402  # the e-stop is pressed; latches
    E_STOP_MISSING = 403  # an e-stop is required, and nothing publishes e_stop
    E_STOP_STALE = 404  # an e-stop is required, and no e_stop was received within e_stop_timeout
    DEADMAN_STALE = 405  # a dead-man switch is required, and none was received within deadman_timeout
    DEADMAN_RELEASED = 406  # the dead-man switch is not held
    SPEED_SCALE_LOWERED = 407  # speed_scale was lowered in motion

    NO_CONTROLLER = 501  # nothing subscribes to a controller's command topic
    OTHER_PUBLISHER = 502  # another node publishes to a controller's command topic
    NOT_ACTIVE = 503  # the node is not active
    DEACTIVATED = 504  # the node was deactivated, or is shutting down, in motion
    CONTROLLER_INACTIVE = 505  # the controller manager says that a controller is not active
    CONTROLLER_SILENT = 506  # a controller that reported its state has ceased to
    CONTROLLER_SLOWED = 507  # a controller runs its trajectory at another speed than 100 %, or is paused
    CONTROLLER_ELSEWHERE = 508  # in motion, a controller's set-point is not on the windows that it was sent
    GATE_HELD_UP = 509  # in motion, the gate itself did not run for longer than gap_max


class Cause(NamedTuple):
    """Why the gate holds, stops, latches or rejects: a code for programs, a sentence for people. False where none."""

    code: GateCode = GateCode.NONE
    text: str = ""

    def __bool__(self) -> bool:
        return self.code != GateCode.NONE


NO_CAUSE = Cause()


class PlanRejected(InputError):
    """A plan that the gate does not follow; `cause` says why."""

    def __init__(self, code: GateCode, text: str):
        super().__init__(text)
        self.cause = Cause(code, str(self))


def _number(default: float, text: str, low: float = 0.0, high: float = math.inf, unit: str = "s") -> float:
    return field(default=default, metadata={"text": text, "low": low, "high": high, "unit": unit})


def _flag(default: bool, text: str) -> bool:
    return field(default=default, metadata={"text": text})


@dataclass(frozen=True)
class GateSettings:
    """Settings of the gate; the metadata of each field has its unit, range and description.

    A timeout of `inf` turns its check off (in process, where there are no latents or no joint states).
    Raises InputError for a value out of range.
    """

    control_period: float = _number(0.1, "Control period: the grid of `executed`.", 0.005, 10.0)
    roll_period: float = _number(0.05, "Period of new windows while a plan is followed.", 0.01, 1.0)
    horizon: float = _number(0.3, "Time for which a window follows the plan before it comes to rest.", 0.05, 2.0)
    window_max: float = _number(0.6, "A plan that ends within this time is sent to its end.", 0.05, 10.0)
    lead: float = _number(0.02, "Stops and late plans leave the last window this far ahead of now.", 0.0, 0.2)
    speed_scale: float = _number(1.0, "Maximum joint velocity, as a share of the limits.", 0.01, 1.0, "1")
    gross: float = _number(
        1.5, "Gross breach: a plan that would have to be slowed by more than this factor.", 1.0, 10.0, "1"
    )
    gross_position: float = _number(
        0.2, "Gross breach: a plan this far beyond a joint's position limits.", 0.0, 10.0, "rad"
    )
    latch_on_gross: bool = _flag(True, "Latch after a gross breach, until release.")
    start_tolerance: float = _number(
        0.15, "Maximum distance of a plan's start from the reference (bridged).", 0.0, 3.2, "rad"
    )
    splice_tolerance: float = _number(5e-4, "Distance up to which a plan is joined without a bridge.", 0.0, 0.1, "rad")
    bridge_max: float = _number(0.8, "Maximum duration of a bridge from the reference into a plan.", 0.05, 5.0)
    plan_late: float = _number(0.1, "A plan whose hand-over is further in the past is rejected.", 0.0, 5.0)
    plan_ahead: float = _number(1.0, "A plan whose hand-over is further in the future is rejected.", 0.01, 10.0)
    plan_max: float = _number(30.0, "Maximum duration of a plan.", 0.1, 600.0)
    source_timeout: float = _number(1.0, "A plan made from an older frame is rejected.", 0.01)
    plan_timeout: float = _number(math.inf, "The arm stops without a new plan for this long.", 0.01)
    planner_timeout: float = _number(0.25, "The arm stops without a plan or a planner_status for this long.", 0.02)
    latent_timeout: float = _number(0.2, "The arm stops without a latent for this long.", 0.01)
    latent_stamp_timeout: float = _number(0.5, "The arm stops when the newest latent's stamp is older.", 0.01)
    joint_timeout: float = _number(0.15, "The arm stops without joint_states for this long.", 0.005)
    joint_stamp_timeout: float = _number(0.25, "The arm stops when the newest joint_states' stamp is older.", 0.005)
    skew: float = _number(0.1, "Maximum time by which a stamp may lie in the future.", 0.0, 10.0)
    frozen_timeout: float = _number(0.25, "The arm stops when joint_states freeze for this long in motion.", 0.02)
    frozen_motion: float = _number(
        0.02, "Motion of the reference from which frozen joint_states are detected.", 1e-4, 1.0, "rad"
    )
    jump_factor: float = _number(
        2.0, "A joint faster than this many times its velocity limit has jumped.", 1.0, 100.0, "1"
    )
    jump_margin: float = _number(0.03, "Measurement noise allowed before a sample counts as a jump.", 0.0, 1.0, "rad")
    following_error: float = _number(
        0.2, "Distance of reference and measured position that stops and latches.", 0.005, 3.2, "rad"
    )
    require_e_stop: bool = _flag(False, "The arm moves only while something publishes e_stop.")
    e_stop_timeout: float = _number(math.inf, "With require_e_stop: maximum time between e_stop messages.", 0.02)
    require_deadman: bool = _flag(False, "The arm moves only while a dead-man switch is held.")
    deadman_timeout: float = _number(
        0.3, "The dead-man switch counts as released without a message for this long.", 0.02, 10.0
    )
    resume_after: float = _number(0.5, "Time for which inputs must be healthy before motion resumes.", 0.0, 60.0)
    hold_tolerance: float = _number(
        0.05, "Further from the reference, a held arm starts from where it is.", 0.0, 3.2, "rad"
    )
    sag_max: float = _number(
        0.1, "Distance of the held set-point from the measured position that counts as sag.", 0.0, 1.0, "rad"
    )
    controller_timeout: float = _number(
        0.15, "The arm stops when a controller that reports its state is silent for this long.", 0.02
    )
    gap_max: float = _number(0.1, "The arm holds when the gate itself did not run for this long in motion.", 0.02, 1.0)
    anchor_after: float = _number(0.5, "Time at rest before a plan may start from the measured position.", 0.0, 60.0)
    rest_speed: float = _number(0.1, "Measured joint speed below which the arm is at rest.", 1e-3, 3.0, "rad/s")

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if "low" in f.metadata and not f.metadata["low"] <= value <= f.metadata["high"]:
                low, high, unit = f.metadata["low"], f.metadata["high"], f.metadata["unit"]
                raise InputError(f"gate {f.name}: expected a value from {low} to {high} {unit}, found {value}")


@dataclass(frozen=True)
class Track:
    """The path of an accepted plan: from the reference through a join into the plan, to rest. Times in s."""

    path: Path
    joined: float  # when the path leaves the previous one
    plan_id: int
    source_stamp: float
    valid_until: float
    received: float
    follow_until: float  # after this the plan exceeds the position limits (inf: never)


@dataclass(frozen=True)
class Window:
    """A motion that ends at rest, to be sent to the controllers now. start: s, absolute time of the trajectory's 0.

    The first point lies now or shortly before, on the curve of the previous window.
    """

    start: float
    trajectory: JointTrajectory


@dataclass(frozen=True)
class ExecutedTick:
    """A completed control period.

    start: s, a multiple of the period. q_start, q_end: (J,) rad, reference at its start and end. values: (A,), the
    motion in the action space, or None without a mapping. plan_id: plan followed at its start (0: none).
    """

    start: float
    q_start: np.ndarray
    q_end: np.ndarray
    values: np.ndarray | None
    plan_id: int


@dataclass(frozen=True)
class PlanVerdict:
    """Answer to a plan, true if accepted. cause: of a rejection; text: of the cause, or what was changed."""

    accepted: bool
    text: str = ""
    clipped: bool = False
    splice_error: float = math.nan  # rad, between reference and plan at the join
    cause: Cause = NO_CAUSE

    def __bool__(self) -> bool:
        return self.accepted


@dataclass(slots=True)
class GateReport:
    """The fields of jepa_msgs/GateStatus, which documents them, and the text of the last rejection."""

    state: GateState
    code: GateCode
    text: str
    speed_scale: float
    latent_age_ms: float
    plan_age_ms: float
    joint_age_ms: float
    following_error: float
    min_distance: float
    clipped: int
    rejected: int
    stops: int
    plan_id: int
    rejection_code: GateCode
    last_rejection: str


@dataclass(slots=True)
class GateOutput:
    """Output of one tick. reference: (3, J) rad, rad/s, rad/s² (None while INACTIVE)."""

    reference: np.ndarray | None
    window: Window | None
    executed: list[ExecutedTick]
    status: GateReport
