"""Node parameters as a schema: one entry states type, default, unit, range and meaning, and is the only check.

Invalid values are refused with the reason, all or nothing: at start the node ends with one line; later the request to
set them is answered with it, and nothing changes.
"""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import SimpleNamespace

import rclpy.parameter
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult

from jepa_ros.errors import InputError
from jepa_ros.robot.config import COMMAND_INTERFACES

_Type = rclpy.parameter.Parameter.Type
# Python type: ROS type, ROS type of a list, name in errors
_TYPES = {
    bool: (_Type.BOOL, _Type.BOOL_ARRAY, "true or false"),
    int: (_Type.INTEGER, _Type.INTEGER_ARRAY, "an integer"),
    float: (_Type.DOUBLE, _Type.DOUBLE_ARRAY, "a number"),
    str: (_Type.STRING, _Type.STRING_ARRAY, "a string"),
}


@dataclass(frozen=True)
class Parameter:
    """One parameter of a node. Its type is that of the default: bool, int, float, str, or a list of one of them.

    range: lowest and highest value allowed, both included; for lists, of each element. choices: allowed strings.
    element: type of the elements, required where the default is an empty list. read_only: can be set at start only.
    at_configure: read by configure, so a change is refused while the node is configured.
    """

    name: str
    default: bool | int | float | str | list
    description: str
    unit: str = ""
    range: tuple[float, float] | None = None
    choices: tuple[str, ...] = ()
    element: type | None = None
    read_only: bool = False
    at_configure: bool = False

    @property
    def is_list(self) -> bool:
        return isinstance(self.default, list)

    @property
    def scalar(self) -> type:
        """Type of the value, or of each element of a list."""
        if not self.is_list:
            return type(self.default)
        return self.element or type(self.default[0])

    @property
    def ros_type(self) -> _Type:
        return _TYPES[self.scalar][self.is_list]

    def check(self, value):
        """Return the value in the parameter's type; integers become floats. Raises InputError where it is invalid."""
        if not self.is_list:
            return self._check_scalar(value)
        if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
            raise self._refusal("a list", value)
        return [self._check_scalar(v) for v in value]

    def _check_scalar(self, value):
        kind = self.scalar
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self._refusal(_TYPES[kind][2], value)
        if kind is float and not math.isfinite(value):
            raise self._refusal("a finite number", value)
        if self.range and not self.range[0] <= value <= self.range[1]:
            unit = f" {self.unit}" if self.unit else ""
            raise self._refusal(f"{self.range[0]:g} to {self.range[1]:g}{unit}", value)
        if self.choices and value not in self.choices:
            raise self._refusal(f"one of {', '.join(self.choices)}", value)
        return value

    def _refusal(self, expected: str, found) -> InputError:
        return InputError(f"parameter '{self.name}': expected {expected}, found {found!r}")

    def descriptor(self) -> ParameterDescriptor:
        """Return rcl_interfaces/ParameterDescriptor, for `ros2 param describe` and graphical editors."""
        unit = f" [{self.unit}]" if self.unit else ""
        message = ParameterDescriptor(
            name=self.name, type=self.ros_type.value, description=self.description + unit, read_only=self.read_only
        )
        constraints = []
        if self.choices:
            constraints.append(f"one of: {', '.join(self.choices)}")
        if self.at_configure:
            constraints.append("fixed while the node is configured")
        if self.range and self.is_list:
            constraints.append(f"each element from {self.range[0]:g} to {self.range[1]:g}")
        elif self.range and self.scalar is int:
            low, high = map(int, self.range)
            message.integer_range = [IntegerRange(from_value=low, to_value=high)]
        elif self.range:
            low, high = map(float, self.range)
            message.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
        message.additional_constraints = "; ".join(constraints)
        return message


class ParameterSet:
    """The declared parameters of a JepaNode. `values` has the accepted values as attributes; a change replaces it."""

    def __init__(self, node, schema: Sequence[Parameter]) -> None:
        self._node, self._schema = node, {p.name: p for p in schema}
        if len(self._schema) != len(schema):
            raise ValueError("parameter names must differ")
        self.values = SimpleNamespace(**{p.name: p.check(self._given(node, p)) for p in schema})
        node.validate(self.values)
        for p in schema:
            self._declare(node, p, getattr(self.values, p.name))
        node.add_pre_set_parameters_callback(self._widen)
        node.add_on_set_parameters_callback(self._on_set)
        node.add_post_set_parameters_callback(self._after_set)

    @staticmethod
    def _given(node, p: Parameter):
        """Return the value from the command line or a parameters file, of any type, else the default."""
        anything = ParameterDescriptor(dynamic_typing=True)
        value = node.declare_parameter(p.name, None, anything).value
        node.undeclare_parameter(p.name)
        return p.default if value is None else value

    @staticmethod
    def _declare(node, p: Parameter, value) -> None:
        if value != []:
            node.declare_parameter(p.name, value, p.descriptor(), ignore_override=True)
            return
        # rclpy cannot infer the type of an empty list.
        node.declare_parameter(p.name, p.ros_type, p.descriptor(), ignore_override=True)
        node.set_parameters([rclpy.parameter.Parameter(p.name, p.ros_type, value)])

    def misspelt(self, names: Iterable[str]) -> list[str]:
        """Return a sentence for each name that is not a parameter of this node but resembles one."""
        hints = []
        for name in names:
            close = difflib.get_close_matches(name, self._schema, n=1, cutoff=0.8)
            if name not in self._schema and close:
                hints.append(f"unknown parameter '{name}' has no effect; did you mean '{close[0]}'?")
        return hints

    def refusal(self, parameters: Sequence[rclpy.parameter.Parameter]) -> str:
        """Return why these changes are refused; empty if they are accepted."""
        try:
            values = SimpleNamespace(**vars(self.values))
            for given in parameters:
                entry = self._schema.get(given.name)
                if entry is None:
                    continue
                changed = given.value != getattr(self.values, given.name)
                if entry.at_configure and changed and self._node.state not in ("unconfigured", "configuring"):
                    raise InputError(f"parameter '{given.name}': fixed while the node is configured; clean it up first")
                if entry.read_only:
                    raise InputError(f"parameter '{given.name}': read-only; set it when you start the node")
                setattr(values, given.name, entry.check(given.value))
                if entry.scalar is str and changed:
                    _refuse_path(given.name, given.value)
            self._node.validate(values)
        except InputError as error:
            return str(error)
        return ""

    def _widen(self, parameters):
        """Convert integers to floats for float parameters: `ros2 param set /camera rate 15` means 15.0."""
        out = []
        for given in parameters:
            entry = self._schema.get(given.name)
            if entry is not None and entry.scalar is float:
                with suppress(InputError):  # it is refused with its reason later
                    given = rclpy.parameter.Parameter(given.name, entry.ros_type, entry.check(given.value))
            out.append(given)
        return out

    def _on_set(self, parameters) -> SetParametersResult:
        reason = self.refusal(parameters)
        return SetParametersResult(successful=not reason, reason=reason)

    def _after_set(self, parameters) -> None:
        mine = {p.name: self._schema[p.name].check(p.value) for p in parameters if p.name in self._schema}
        if mine:
            self.values = SimpleNamespace(**{**vars(self.values), **mine})
            self._node.parameters_changed(set(mine))


def _refuse_path(name: str, value: str | list[str]) -> None:
    """Raise InputError for a path. The user who starts a node may name any file; a request over the network may only
    choose installed files, by name."""
    for text in [value] if isinstance(value, str) else value:
        if os.sep in text or text.startswith(("~", ".")):
            raise InputError(f"parameter '{name}': paths are accepted at start only; give a name, not {text!r}")


MODEL = Parameter("model", "openarm_reach", "Checkpoint: name in config/models, or directory.", at_configure=True)
ROBOT = Parameter("robot", "openarm", "Robot: name in config/robots, or path of a YAML file.", at_configure=True)
COMMAND_INTERFACE = Parameter(
    "command_interface",
    "",
    "Command interface of the controllers to use; empty: the first one in the robot's YAML.",
    choices=("", *COMMAND_INTERFACES),
    at_configure=True,
)
ROBOT_NAMESPACE = Parameter(
    "robot_namespace",
    "",
    "Namespace of the robot's own topics (joint_states, robot_description, controllers); empty: the node's own.",
    read_only=True,
)
MODEL_PARAMETERS = (
    MODEL,
    ROBOT,
    ROBOT_NAMESPACE,
    Parameter(
        "threads",
        1,
        "Number of torch threads; more than there are free cores slow everything down.",
        range=(1, 64),
        at_configure=True,
    ),
    Parameter(
        "device",
        "cpu",
        "Device that runs the model: cpu, cuda, cuda:N, or auto. The small model is faster on the CPU.",
        at_configure=True,
    ),
)
"""Parameters of the nodes that load a model."""
