"""JEPA world models that control robot arms on ROS 2.

The public Python API is in `jepa_ros.api`, and its names are attributes of this package:

    import jepa_ros

    model = jepa_ros.load_model("openarm_reach")
    latent, goal = jepa_ros.encode(model, image), jepa_ros.encode(model, goal_image)
    step = jepa_ros.plan(model, latent, goal, joints)
    summary = jepa_ros.evaluate_bag("my_bag", model)

Modules are loaded when they are first used (PEP 562), so that `--help`, launch files and the nodes that need no torch
start at once.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jepa_ros.api import *  # noqa: F403

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Return a sub-module, or a name of the API. Raises AttributeError for other names."""
    if not name.startswith("_"):
        if importlib.util.find_spec(f"jepa_ros.{name}"):
            return importlib.import_module(f"jepa_ros.{name}")
        api = importlib.import_module("jepa_ros.api")
        if name in api.__all__:
            return getattr(api, name)
    raise AttributeError(f"module 'jepa_ros' has no attribute '{name}'")
