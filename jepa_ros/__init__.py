"""Control of arms with a JEPA world model, on ROS 2.

The package is lean to import: no module is loaded before it is asked for, so that `--help`, launch files and the nodes
that need no torch start at once. Sub-packages and `InputError` are attributes all the same (PEP 562).
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_SUBMODULES = frozenset(
    {
        "bags",
        "cli",
        "errors",
        "evaluation",
        "images",
        "nodes",
        "planning",
        "resources",
        "robot",
        "ros",
        "sim",
        "training",
        "world_model",
    }
)

__all__ = ["InputError", "__version__"]


def __getattr__(name: str) -> Any:
    """Import a sub-module, or `InputError`, the first time that it is named (raises AttributeError for other names)."""
    if name == "InputError":
        return importlib.import_module("jepa_ros.errors").InputError
    if name in _SUBMODULES:
        return importlib.import_module(f"jepa_ros.{name}")
    raise AttributeError(f"module 'jepa_ros' has no attribute '{name}'")
