"""docs/how_to/hardware.md: its commands, options, launch arguments, robots and parameters are those that there are."""

import re
import shlex
from dataclasses import fields
from pathlib import Path

import typer
import yaml

from jepa_ros.bringup.nodes import ARGUMENTS
from jepa_ros.cli import app
from jepa_ros.nodes.arm_gate.parameters import PARAMETERS
from jepa_ros.resources import list_robots

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "how_to" / "hardware.md").read_text()
# Lines of code, and code within lines; a line that ends in a backslash goes on in the next.
CODE = [line.split("#")[0].strip() for line in TEXT.replace("\\\n", " ").splitlines() if line.startswith("    ")]
CODE += re.findall(r"`([^`\n]+)`", TEXT)


def commands(beginning: str) -> list[list[str]]:
    """The words after this beginning, wherever it stands in a line of code."""
    return [shlex.split(line.split(beginning, 1)[1]) for line in CODE if beginning in line]


def test_documented_commands_and_options_exist():
    found = commands("jepa_ros doctor ") + commands("jepa_ros calibrate ") + commands("jepa_ros robot ")
    assert len(found) >= 5
    for beginning in ("doctor", "calibrate", "robot", "bench"):
        for words in commands(f"jepa_ros {beginning} "):
            command = typer.main.get_command(app).commands[beginning]
            while hasattr(command, "commands"):
                command = command.commands[words.pop(0)]
            known = {option for parameter in command.params for option in parameter.opts}
            assert {word for word in words if word.startswith("--")} <= known, (beginning, words)


def test_documented_launch_arguments_and_robots_exist():
    known = {field.name for field in fields(ARGUMENTS["robot"])}
    lines = commands("ros2 launch jepa_ros robot.launch.py ")
    assert len(lines) >= 3
    for words in lines:
        given = dict(word.split(":=", 1) for word in words)
        assert set(given) <= known, words
        assert given["robot"] in list_robots() or given["robot"].endswith(".yaml"), words
    table = TEXT.split("### 3.")[1].split("### 4.")[0]
    assert set(re.findall(r"^\| `(\w+)`", table, re.M)) <= known
    named = set(re.findall(r"`(openarm\w*|franka\w*|ur5e|kinova\w*)`", table)) - {"openarm_bringup"}
    assert named <= set(list_robots())


def test_the_documented_gate_parameters_exist_with_the_right_type():
    block = TEXT.split("    /**/arm_gate:")[1].split("\n\n")[0]
    given = yaml.safe_load("/**/arm_gate:" + block)["/**/arm_gate"]["ros__parameters"]
    known = {parameter.name: parameter for parameter in PARAMETERS}
    assert set(given) <= set(known)
    for name, value in given.items():
        assert type(value) is type(known[name].default), name
        assert known[name].at_configure or name == "speed_scale", f"{name} can be changed while the gate runs"
