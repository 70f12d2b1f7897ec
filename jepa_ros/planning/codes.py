"""Codes for why the planner waits or how a goal ended, for programs; the sentence beside each is for people."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class PlannerCode(IntEnum):
    """Numbers as in the result of jepa_msgs/ReachGoal (without NONE) and in jepa_msgs/PlannerStatus (without REACHED).

    The hundreds are groups: 1 the goal, 2 inputs, 3 planning, 4 the gate, 5 goals that were ended.
    """

    NONE = 0  # nothing is wrong
    REACHED = 0

    GOAL_INVALID = 101
    GOAL_KIND_UNKNOWN = 102
    GOAL_IMAGE_INVALID = 103
    GOAL_LATENT_INVALID = 104
    GOAL_POSE_INVALID = 105
    GOAL_JOINTS_INVALID = 106
    GOAL_OBJECT_INVALID = 107

    NO_LATENT = 201
    LATENT_STALE = 202
    LATENT_OF_OTHER_MODEL = 203
    LATENT_INVALID = 204
    NO_JOINT_STATES = 205
    WAITING_FOR_FRAME = 206
    INPUTS_RECOVERING = 207

    NO_PLAN_ALLOWED = 301
    HORIZON_TOO_SHORT = 302
    PLAN_LATE = 303
    SEARCH_TIMEOUT = 304
    PLANNING_FAILED = 305
    OUT_OF_MEMORY = 306

    GATE_SILENT = 401
    GATE_INACTIVE = 402
    GATE_LATCHED = 403
    GATE_HOLDING = 404

    CANCELLED = 501
    REPLACED = 502
    GOAL_TIMEOUT = 503
    DEACTIVATED = 504
    SHUT_DOWN = 505


class Cause(NamedTuple):
    """Why no plan is made, or why a goal ended. False where there is no cause."""

    code: PlannerCode = PlannerCode.NONE
    text: str = ""

    def __bool__(self) -> bool:
        return self.code != PlannerCode.NONE


NO_CAUSE = Cause()
