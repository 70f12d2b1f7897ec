"""Facts about checkpoints, read from files without building a model or loading torch: for `models list`, `inspect`."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from jepa_ros.errors import InputError
from jepa_ros.resources import config_path, installed_models, list_robots, models_in
from jepa_ros.world_model.config import CONFIG, WEIGHTS, ModelConfig, identify, read_config, sha256

CARD = "README.md"
BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
"""BatchNorm's statistics, which are stored beside the parameters."""


def list_checkpoints() -> list[dict[str, Any]]:
    """Return an entry for each model: the shipped ones by name, then the installed ones.

    Keys: name, origin ("shipped" or "installed"), directory and problem (why it cannot be used, else None). Of a usable
    model also those of `_outline` and model_id.
    """
    shipped = models_in(config_path("models"))
    entries = [_list_entry(path, "shipped") for path in shipped]
    shipped_names = {path.name for path in shipped}
    for path in models_in(installed_models()):
        entry = _list_entry(path, "installed")
        if path.name in shipped_names:
            entry["problem"] = f"hidden by the model {path.name} that ships with the package"
        entries.append(entry)
    return entries


def _list_entry(directory: Path, origin: str) -> dict[str, Any]:
    entry = {"name": directory.name, "origin": origin, "directory": str(directory), "problem": None}
    try:
        config = read_config(directory)
        if not (directory / WEIGHTS).is_file():
            raise InputError(f"model {directory}: expected the weights in {WEIGHTS}, found no such file")
    except InputError as error:
        return entry | {"problem": str(error)}
    return entry | _outline(config) | {"model_id": identify(directory)}


def _outline(config: ModelConfig) -> dict[str, Any]:
    """Return the main facts of a configuration: control_rate in Hz, step in s."""
    return {
        "family": config.family,
        "latent_shape": list(config.latent_shape),
        "action": {"name": config.action.name, "dimension": config.action.dimension, "block": config.block},
        "control_rate": config.control_rate,
        "step": config.step,
        "robots": list(config.robots),
    }


def read_facts(directory: Path) -> dict[str, Any]:
    """Return all facts of the checkpoint in `directory`, as JSON types.

    Units: rates in Hz, step in s, speeds in m/s. robots.fit: for each robot in config/robots None, or why the model
    does not fit it. Raises InputError where a file is missing, or the configuration or the weights' header is invalid.
    """
    config = read_config(directory)
    parameters = _count_parameters(directory / WEIGHTS)
    values = config.model_dump(mode="json")
    files = {name: directory / name for name in (CONFIG, WEIGHTS)}
    return {
        "name": config.name,
        "directory": str(directory),
        "model_id": identify(directory),
        "schema_version": config.schema_version,
        **_outline(config),
        "files": {name: {"bytes": path.stat().st_size, "sha256": sha256(path)} for name, path in files.items()},
        "parameters": parameters | {"total": sum(parameters.values())},
        "frozen_encoder": _read_frozen_encoder(config, directory),
        "max_speed": config.action.max_speed,
        "max_yaw_speed": config.action.max_yaw_speed,
        "history": config.history,
        **{key: values[key] for key in ("encoder", "predictor", "policy", "preprocessing", "cameras", "camera")},
        "proprioception": list(config.proprioception.joints + config.proprioception.gripper),
        "distance": values["distance"],
        "surprise": values["surprise"],
        "robots": {"trained_for": list(config.robots), "fit": _check_robots(config)},
        "card": read_card_tables(directory / CARD),
    }


def _count_parameters(path: Path, prefix: str = "") -> dict[str, int]:
    """Return the number of parameters of each part of a model, from the header of a safetensors file alone.

    prefix: of the tensors to count. Raises InputError where the file is missing or cannot be read.
    """
    if not path.is_file():
        raise InputError(f"model {path}: expected the weights in safetensors format, found no such file")
    from safetensors import SafetensorError, safe_open

    parts: dict[str, int] = {}
    try:
        with safe_open(path, "numpy") as file:
            for key in file.keys():
                if key.startswith(prefix) and not key.endswith(BUFFERS):
                    part = key.removeprefix("model.").split(".")[0]
                    parts[part] = parts.get(part, 0) + math.prod(file.get_slice(key).get_shape())
    except (SafetensorError, OSError) as error:
        raise InputError(f"model {path}: expected a safetensors file, found one that cannot be read: {error}") from None
    return parts


def _read_frozen_encoder(config: ModelConfig, directory: Path) -> dict[str, Any] | None:
    """Return the facts of a frozen encoder; None where the encoder was trained with the model.

    Raises InputError where its files cannot be read.
    """
    if config.encoder.type != "transformers":
        return None
    from jepa_ros.world_model.frozen_encoder import read_kind, weight_files, weights_digest

    place = directory / config.encoder.directory
    kind = read_kind(place)
    prefix = "encoder." if kind == "vjepa2" else ""  # its other tensors are of a predictor that is not used
    counts = [sum(_count_parameters(path, prefix).values()) for path in weight_files(place)]
    return {
        "directory": str(place),
        "kind": kind,
        "parameters": sum(counts),
        "expected_sha256": config.encoder.sha256,
        "sha256": weights_digest(place),
    }


def _check_robots(config: ModelConfig) -> dict[str, str | None]:
    """Return for each robot in config/robots None, or why the model does not fit it, in one line."""
    from jepa_ros.robot.config import load_robot
    from jepa_ros.world_model.checkpoint import check_robot

    found: dict[str, str | None] = {}
    for name in list_robots():
        try:
            check_robot(config, load_robot(name))
            found[name] = None
        except InputError as error:
            found[name] = str(error)
    return found


def read_card_tables(path: Path) -> list[dict[str, list]]:
    """Return the tables of a model card (Markdown) as {"columns": [...], "rows": [[...], ...]}; none without a card.

    Raises InputError where the card is not text.
    """
    if not path.is_file():
        return []
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(f"model {path}: expected a card in UTF-8, found other bytes") from None
    tables = []
    for block in re.findall(r"(?:^[ \t]*\|.*\n?)+", text, re.MULTILINE):
        header, *lines = map(str.strip, block.splitlines())
        if lines and re.fullmatch(r"\|(\s*:?-+:?\s*\|)+", lines[0]):
            columns = _split_cells(header)
            rows = [(_split_cells(line) + [""] * len(columns))[: len(columns)] for line in lines[1:]]
            tables.append({"columns": columns, "rows": rows})
    return tables


def _split_cells(line: str) -> list[str]:
    cells = [cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line.removeprefix("|"))]
    return cells[:-1] if cells and not cells[-1] else cells
