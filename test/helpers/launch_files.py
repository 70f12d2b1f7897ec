"""What a launch file would start, read with launch and launch_ros, or with a stand-in for them."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from types import ModuleType

import yaml

import jepa_ros.bringup

LAUNCH = Path(__file__).resolve().parents[2] / "launch"


class Description(list):
    """launch's LaunchDescription, of which one may be made from another's entities."""

    entities = property(lambda self: self)


def real_launch_is_there() -> bool:
    """The repository's own launch/ makes `import launch` succeed, so ask for something in it."""
    try:
        from launch import LaunchDescription  # noqa: F401
        from launch_ros.actions import Node  # noqa: F401
    except ImportError:
        return False
    return True


def nodes_by_launch(kind: str, arguments: dict[str, str]) -> list[dict]:
    """The nodes of launch/<kind>.launch.py with these arguments, resolved by launch itself."""
    from launch import LaunchContext
    from launch.actions import DeclareLaunchArgument
    from launch.utilities import perform_substitutions
    from launch_ros.actions import Node

    context = LaunchContext()
    context.launch_configurations.update(arguments)

    def text(value) -> str:
        return perform_substitutions(context, value) if isinstance(value, list) else str(value)

    found = []
    for entity in runpy.run_path(str(LAUNCH / f"{kind}.launch.py"))["generate_launch_description"]().entities:
        if isinstance(entity, DeclareLaunchArgument):
            entity.execute(context)
        if not isinstance(entity, Node):
            continue
        if entity.condition is not None and not entity.condition.evaluate(context):
            continue
        entity._perform_substitutions(context)
        files = [Path(path) for path, is_file in entity._Node__expanded_parameter_arguments if is_file]
        [section] = yaml.safe_load(files[-1].read_text()).values()
        found.append(
            {
                "executable": text(entity.node_executable),
                "package": text(entity.node_package),
                "name": entity.node_name.rsplit("/", 1)[1],
                "namespace": entity.expanded_node_namespace.rstrip("/"),
                "params_file": files[0],
                "parameters": section["ros__parameters"],
                "remappings": [tuple(rule) for rule in entity.expanded_remapping_rules or []],
                "log_level": perform_substitutions(context, entity._Node__ros_arguments[1:]),
                "prefix": perform_substitutions(context, entity.process_description._Executable__prefix),
            }
        )
    return found


def nodes_by_stand_in(kind: str, arguments: dict[str, str], monkeypatch, share: Path) -> tuple[list[dict], dict]:
    """The same, and the arguments with their defaults, by modules in place of launch that know just the words which the
    launch files use."""
    nodes: list[dict] = []
    defaults: dict[str, str] = {}
    values: dict[str, object] = dict(arguments)

    def text(value) -> str:
        if isinstance(value, list):
            return "".join(map(text, value))
        return value() if callable(value) else str(value)

    def declare(name, default_value, description, choices=None):
        assert description and isinstance(default_value, str) or callable(default_value)
        assert choices is None or text(values.get(name, default_value)) in choices
        defaults[name] = text(default_value)
        values.setdefault(name, default_value)

    def typed(value, value_type):
        return lambda: yaml.safe_load(text(value)) if value_type is bool else value_type(text(value))

    def yes():
        return True

    def node(
        *, package, executable, name, namespace, parameters, ros_arguments, remappings=(), condition=yes, **others
    ):
        if not condition():
            return
        common = {"exec_name", "output", "prefix", "respawn", "respawn_delay"}
        assert set(others) <= common
        params_file, given = parameters
        namespace = text(namespace).strip("/")
        nodes.append(
            {
                "executable": executable,
                "package": package,
                "name": name,
                "namespace": f"/{namespace}" if namespace else "",
                "params_file": Path(text(params_file)),
                "parameters": {key: value() if callable(value) else value for key, value in given.items()},
                "remappings": [(a, text(b)) for a, b in remappings],
                "log_level": text(ros_arguments[1]),
                "prefix": others.get("prefix", ""),
            }
        )

    def ignored(*args, **kwargs):
        return None

    words = {
        "ament_index_python": {},
        "ament_index_python.packages": {"get_package_prefix": ignored},
        "launch": {"LaunchDescription": Description},
        "launch.actions": {
            "DeclareLaunchArgument": declare,
            "EmitEvent": ignored,
            "GroupAction": ignored,
            "IncludeLaunchDescription": ignored,
            "LogInfo": ignored,
            "OpaqueFunction": ignored,
            "RegisterEventHandler": ignored,
            "SetEnvironmentVariable": ignored,
        },
        "launch.conditions": {"IfCondition": lambda holds: holds, "UnlessCondition": ignored},
        "launch.event_handlers": {"OnProcessExit": ignored},
        "launch.events": {"Shutdown": ignored},
        "launch.launch_description_sources": {
            "AnyLaunchDescriptionSource": ignored,
            "PythonLaunchDescriptionSource": ignored,
        },
        "launch.substitutions": {
            "EnvironmentVariable": ignored,
            "EqualsSubstitution": lambda a, b: lambda: text(a) == b,
            "IfElseSubstitution": lambda holds, yes, no: lambda: yes if holds() else no,
            "NotEqualsSubstitution": lambda a, b: lambda: text(a) != b,
            "LaunchConfiguration": lambda name: lambda: text(values[name]),
            "PathJoinSubstitution": lambda parts: lambda: str(Path(*map(text, parts))),
        },
        "launch_ros": {},
        "launch_ros.actions": {"Node": node},
        "launch_ros.parameter_descriptions": {"ParameterValue": typed},
        "launch_ros.substitutions": {"FindPackageShare": lambda package: str(share)},
    }
    for name, attributes in words.items():
        module = ModuleType(name)
        vars(module).update(attributes)
        monkeypatch.setitem(sys.modules, name, module)
    forget()
    try:
        runpy.run_path(str(LAUNCH / f"{kind}.launch.py"))["generate_launch_description"]()
    finally:
        forget()  # they know the stand-ins
    return nodes, defaults


def forget() -> None:
    """Let the next import of launch_description load it again."""
    sys.modules.pop("jepa_ros.bringup.launch_description", None)
    vars(jepa_ros.bringup).pop("launch_description", None)  # `from jepa_ros.bringup import ...` looks there first
