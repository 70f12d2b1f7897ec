"""Which models are there: those that ship with the package and those that were installed. Needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jepa_ros.errors import InputError
from jepa_ros.resources import config_path, installed_models, models_in
from jepa_ros.world_model.config import WEIGHTS, ModelConfig, identify, read_config

SHIPPED, INSTALLED = "shipped", "installed"


def catalogue() -> list[dict[str, Any]]:
    """An entry for each model, sorted by name, shipped ones first: see `entry`."""
    shipped = models_in(config_path("models"))
    entries = [entry(path, SHIPPED) for path in shipped]
    hidden = {path.name for path in shipped}
    for path in models_in(installed_models()):
        found = entry(path, INSTALLED)
        if path.name in hidden:
            found["problem"] = f"hidden by the model {path.name} that ships with the package"
        entries.append(found)
    return entries


def entry(directory: Path, origin: str) -> dict[str, Any]:
    """What a list says of a checkpoint. `problem` is one line where it cannot be used, else None; then more is there:
    family, latent_shape, action (name, dimension, block), control_rate in Hz, step in s, robots, model_id."""
    found = {"name": directory.name, "origin": origin, "directory": str(directory), "problem": None}
    try:
        config = read_config(directory)
        if not (directory / WEIGHTS).is_file():
            raise InputError(f"model {directory}: expected the weights in {WEIGHTS}, found no such file")
    except InputError as error:
        return found | {"problem": str(error)}
    return found | outline(config) | {"model_id": identify(directory)}


def outline(config: ModelConfig) -> dict[str, Any]:
    """The part of an entry that the configuration tells."""
    return {
        "family": config.family,
        "latent_shape": list(config.latent_shape),
        "action": {"name": config.action.name, "dimension": config.action.dimension, "block": config.block},
        "control_rate": config.control_rate,
        "step": config.step,
        "robots": list(config.robots),
    }
