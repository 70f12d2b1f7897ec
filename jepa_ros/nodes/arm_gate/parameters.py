"""Parameters of arm_gate: those of the node, and one for each setting of the gate."""

from __future__ import annotations

import math
from dataclasses import Field, fields, replace
from types import SimpleNamespace

from jepa_ros.nodes.common.parameters import COMMAND_INTERFACE, ROBOT, ROBOT_NAMESPACE, Parameter
from jepa_ros.robot.gate.types import GateSettings

MAX_FOLLOWING_ERROR = 3.2  # rad, the highest that the gate's settings allow
NEVER = 1e6  # s, stands for an infinite timeout in parameters, which have no infinity


def make_gate_settings(p: SimpleNamespace) -> GateSettings:
    """Return the gate's settings from the values of the node's parameters."""
    values = {f.name: getattr(p, f.name) for f in fields(GateSettings)}
    settings = GateSettings(**{k: math.inf if v == NEVER else v for k, v in values.items()})
    if p.shadow:  # the arm follows another source
        tolerant = {"following_error": MAX_FOLLOWING_ERROR, "hold_tolerance": settings.start_tolerance}
        settings = replace(settings, **tolerant)
    return settings


def _setting(field: Field) -> Parameter:
    """Return the parameter of a gate setting; only speed_scale can be changed while the node is configured."""
    meta, default, fixed = field.metadata, field.default, field.name != "speed_scale"
    if isinstance(default, bool):
        return Parameter(field.name, default, meta["text"], at_configure=True)
    unit = "" if meta["unit"] == "1" else meta["unit"]
    limits = (meta["low"], min(meta["high"], NEVER))
    return Parameter(field.name, min(default, NEVER), meta["text"], unit=unit, range=limits, at_configure=fixed)


PARAMETERS = (
    ROBOT,
    ROBOT_NAMESPACE,
    COMMAND_INTERFACE,
    Parameter("rate", 200.0, "Rate of the checks.", unit="Hz", range=(20.0, 1000.0), at_configure=True),
    Parameter("status_rate", 20.0, "Rate of gate_status.", unit="Hz", range=(1.0, 100.0), at_configure=True),
    Parameter(
        "command_stamps",
        "absolute",
        "Clock of commands: absolute, if the controllers' clock agrees with the gate's. zero: windows are stamped in "
        "the controllers' clock, learned from joint_states; until it is known with 0 (start on receipt).",
        choices=("absolute", "zero"),
        at_configure=True,
    ),
    Parameter(
        "controller_rate",
        0.0,
        "Rate of the controllers that take set-points one by one; 0: that of joint_states.",
        unit="Hz",
        range=(0.0, 1000.0),
        at_configure=True,
    ),
    Parameter("shadow", False, "Shadow mode: check plans without publishing commands.", at_configure=True),
    Parameter(
        "clock_timeout",
        0.5,
        "The arm stops when the ROS clock (simulated time) stands still for this long in real time.",
        unit="s",
        range=(0.05, 60.0),
    ),
    Parameter(
        "thread_priority",
        50,
        "SCHED_FIFO priority of the process, if the system grants it; 0: normal scheduling.",
        range=(0, 99),
        at_configure=True,
    ),
    Parameter(
        "deadman_type",
        "joy",
        "Type of the topic `deadman`: joy (sensor_msgs/Joy) or bool (std_msgs/Bool).",
        choices=("joy", "bool"),
        at_configure=True,
    ),
    Parameter("deadman_button", 4, "Index of the dead-man button in Joy.", range=(0, 63), at_configure=True),
    *(_setting(field) for field in fields(GateSettings)),
)
