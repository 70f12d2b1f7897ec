"""The parameters of arm_gate: those of the node, and one for each setting of the gate."""

from __future__ import annotations

import math
from dataclasses import Field, fields, replace
from types import SimpleNamespace

from jepa_ros.nodes.common.parameters import Parameter
from jepa_ros.nodes.common.topics import ROBOT_NAMESPACE
from jepa_ros.robot.config import COMMAND_INTERFACES
from jepa_ros.robot.gate.types import GateSettings

LARGEST_FOLLOWING_ERROR = 3.2  # rad, that the gate's settings allow
LONGEST = 1e6  # s, stands for "never" in parameters, which know no infinity


def _setting(field: Field) -> Parameter:
    meta, default, free = field.metadata, field.default, field.name == "speed_scale"
    if isinstance(default, bool):
        return Parameter(field.name, default, meta["text"], at_configure=True)
    unit = "" if meta["unit"] == "1" else meta["unit"]
    limits = (meta["low"], min(meta["high"], LONGEST))
    return Parameter(field.name, min(default, LONGEST), meta["text"], unit=unit, range=limits, at_configure=not free)


def make_gate_settings(p: SimpleNamespace) -> GateSettings:
    """The gate's settings as the node's parameters have them."""
    values = {f.name: getattr(p, f.name) for f in fields(GateSettings)}
    settings = GateSettings(**{k: math.inf if v == LONGEST else v for k, v in values.items()})
    if p.shadow:  # the arm that is seen follows somebody else
        elsewhere = {"following_error": LARGEST_FOLLOWING_ERROR, "hold_tolerance": settings.start_tolerance}
        settings = replace(settings, **elsewhere)
    return settings


PARAMETERS = (
    Parameter("robot", "openarm", "Name in config/robots, or a YAML file.", at_configure=True),
    ROBOT_NAMESPACE,
    Parameter(
        "command_interface",
        "",
        "Which of the robot's controllers are commanded; empty: those that its YAML names first.",
        choices=("", *COMMAND_INTERFACES),
        at_configure=True,
    ),
    Parameter("rate", 200.0, "Checks a second.", unit="Hz", range=(20.0, 1000.0), at_configure=True),
    Parameter("status_rate", 20.0, "gate_status messages a second.", unit="Hz", range=(1.0, 100.0), at_configure=True),
    Parameter(
        "command_stamps",
        "absolute",
        "Stamps of windows: absolute, where the controllers' clock agrees with ours, or zero.",
        choices=("absolute", "zero"),
        at_configure=True,
    ),
    Parameter(
        "shadow",
        False,
        "Judge plans and follow them in thought, but open no topic to any controller: for recordings.",
        at_configure=True,
    ),
    Parameter(
        "clock_timeout",
        0.5,
        "On simulated time, a clock that stands still for this long (of real time) is a stop.",
        unit="s",
        range=(0.05, 60.0),
    ),
    Parameter(
        "thread_priority",
        50,
        "SCHED_FIFO priority of the process, where the system grants it; 0 leaves the scheduling alone.",
        range=(0, 99),
        at_configure=True,
    ),
    Parameter(
        "deadman_type",
        "joy",
        "What the topic `deadman` carries: sensor_msgs/Joy, or std_msgs/Bool.",
        choices=("joy", "bool"),
        at_configure=True,
    ),
    Parameter("deadman_button", 4, "Button of a Joy that is the dead-man switch.", range=(0, 63), at_configure=True),
    *(_setting(field) for field in fields(GateSettings)),
)
