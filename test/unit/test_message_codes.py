"""Codes: the enums that our code uses and the constants that other programs read off the messages are the same."""

import re

import pytest

from jepa_ros.planning.codes import PlannerCode
from jepa_ros.resources import message_definitions
from jepa_ros.robot.gate.types import GateCode, GateState


def constants(name, kind, part=0):
    """Constants of a type (uint8, uint16) in one part of a definition, by name."""
    text = (message_definitions() / name).read_text().split("---")[part]
    return {n: int(v) for n, v in re.findall(rf"^{kind} ([A-Z_0-9]+)=(\d+)", text, re.MULTILINE)}


def members(enum, *without):
    return {name: int(member) for name, member in enum.__members__.items() if name not in without}


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (constants("msg/GateStatus.msg", "uint8"), members(GateState)),
        (constants("msg/GateStatus.msg", "uint16"), members(GateCode)),
        (constants("msg/PlannerStatus.msg", "uint16"), members(PlannerCode, "REACHED")),
        (constants("action/ReachGoal.action", "uint16", 1), members(PlannerCode, "NONE")),
    ],
    ids=["gate states", "gate codes", "planner codes", "goal results"],
)
def test_enum_names_and_values_equal_the_message_constants(found, wanted):
    assert found == wanted and len(set(found.values())) == len(found)


@pytest.mark.parametrize("name", ["msg/GateStatus.msg", "action/ReachGoal.action"])
def test_every_code_has_a_comment_in_its_message_definition(name):
    codes = [line for line in (message_definitions() / name).read_text().splitlines() if line.startswith("uint16 ")]
    unexplained = [line for line in codes if "=" in line and "#" not in line]
    assert not unexplained
