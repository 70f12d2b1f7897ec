"""The vendor's bring-up of a robot, as launch/robot.launch.py includes it: which file, with which arguments."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from jepa_ros.errors import InputError
from jepa_ros.robot.config import load_robot


@dataclass(frozen=True)
class VendorLaunch:
    """A launch file in a package's share directory, and its arguments."""

    package: str
    file: str
    arguments: Mapping[str, str]


def vendor_launch(
    robot: str, command_interface: str = "", namespace: str = "", mock: bool = False, given: str = ""
) -> VendorLaunch:
    """What the section `bringup` of a robot's YAML asks for.

    namespace: of the robot's own topics, "" for the root. mock: mock hardware in place of the robot. given: the user's
    arguments, "name:=value ...", which win. Raises InputError where the robot has no such section, where an argument
    that it requires is not given, and where its bring-up knows no namespaces but one is wanted.
    """
    config = load_robot(robot, command_interface)
    section = config.bringup
    if section is None:
        raise InputError(f"bringup: expected a section 'bringup' in the file of robot {config.name}, found none")
    arguments = dict(section.arguments) | section.interface_arguments.get(config.controllers[0].interface, {})
    if mock:
        if not section.mock_arguments:
            raise InputError(f"use_mock_hardware: expected mock_arguments for robot {config.name}, found none")
        arguments |= section.mock_arguments
    space = namespace.strip("/")
    if space and section.namespace_argument is None:
        raise InputError(
            f"bringup: the bring-up of robot {config.name} knows the root namespace only: expected robot_namespace:=/, "
            f"found '{namespace}'"
        )
    if space:
        arguments[section.namespace_argument] = space
    arguments |= _pairs(given)
    if missing := [name for name in section.required if name not in arguments]:
        raise InputError(
            f"bringup: robot {config.name}: expected bringup_arguments:='{missing[0]}:=VALUE', found '{given}'"
        )
    return VendorLaunch(section.package, section.file, arguments)


def _pairs(text: str) -> dict[str, str]:
    """The arguments "name:=value ..." as launch's command line has them; quotes keep spaces."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InputError(f"bringup_arguments '{text}': expected name:=value ..., found {error}") from None
    pairs = {}
    for word in words:
        name, sign, value = word.partition(":=")
        if not sign or not name:
            raise InputError(f"bringup_arguments '{text}': expected name:=value, found '{word}'")
        pairs[name] = value
    return pairs
