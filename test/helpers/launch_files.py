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
    *others, nodes = runpy.run_path(str(LAUNCH / f"{kind}.launch.py"))["generate_launch_description"]().entities
    for entity in others:
        if isinstance(entity, DeclareLaunchArgument):
            entity.execute(context)
    for entity in nodes.execute(context):
        if not isinstance(entity, Node):
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
                "log_level": entity._Node__ros_arguments[1],
                "prefix": perform_substitutions(context, entity.process_description._Executable__prefix),
            }
        )
    return found


def nodes_by_stand_in(kind: str, arguments: dict[str, str], monkeypatch) -> tuple[list[dict], dict]:
    """Return the same, and the arguments with their defaults, with modules in place of launch that have only the names
    which the launch files use."""
    defaults: dict[str, str] = {}
    values: dict[str, str] = dict(arguments)

    def declare(name, default_value, description, choices=None):
        assert description and isinstance(default_value, str)
        assert choices is None or values.get(name, default_value) in choices
        defaults[name] = default_value
        values.setdefault(name, default_value)

    def node(*, package, executable, name, namespace, parameters, remappings, ros_arguments, prefix, **others):
        assert set(others) <= {"exec_name", "output", "respawn", "respawn_delay"}
        params_file, given = parameters
        return {
            "executable": executable,
            "package": package,
            "name": name,
            "namespace": namespace,
            "params_file": Path(params_file),
            "parameters": given,
            "remappings": remappings,
            "log_level": ros_arguments[1],
            "prefix": prefix or "",
        }

    def ignored(*args, **kwargs):
        return None

    class Function:
        """launch's OpaqueFunction."""

        def __init__(self, function, args=()):
            self.execute = lambda context: function(context, *args)

    class Configuration:
        """launch's LaunchConfiguration."""

        def __init__(self, name):
            self.perform = lambda context: values[name]

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
            "OpaqueFunction": Function,
            "RegisterEventHandler": ignored,
            "SetEnvironmentVariable": ignored,
        },
        "launch.event_handlers": {"OnProcessExit": ignored},
        "launch.events": {"Shutdown": ignored},
        "launch.launch_description_sources": {
            "AnyLaunchDescriptionSource": ignored,
            "PythonLaunchDescriptionSource": ignored,
        },
        "launch.substitutions": {"LaunchConfiguration": Configuration, "PathJoinSubstitution": ignored},
        "launch_ros": {},
        "launch_ros.actions": {"Node": node},
        "launch_ros.parameter_descriptions": {"ParameterValue": lambda value, value_type: value_type(value)},
        "launch_ros.substitutions": {"FindPackageShare": ignored},
    }
    for name, attributes in words.items():
        module = ModuleType(name)
        vars(module).update(attributes)
        monkeypatch.setitem(sys.modules, name, module)
    forget()
    try:
        entities = runpy.run_path(str(LAUNCH / f"{kind}.launch.py"))["generate_launch_description"]()
        nodes = entities[-1].execute(None)
    finally:
        forget()  # they use the stand-ins
    return [node for node in nodes if node is not None], defaults


def forget() -> None:
    """Let the next import of launch_description load it again."""
    sys.modules.pop("jepa_ros.bringup.launch_description", None)
    vars(jepa_ros.bringup).pop("launch_description", None)  # `from jepa_ros.bringup import ...` looks there first
