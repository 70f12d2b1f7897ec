"""What a checkpoint's files say of it, without building the model: for `jepa_ros models inspect`."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from jepa_ros.checkpoints.catalogue import outline
from jepa_ros.errors import InputError
from jepa_ros.resources import list_robots
from jepa_ros.robot.config import load_robot
from jepa_ros.world_model.checkpoint import check_robot
from jepa_ros.world_model.config import CONFIG, WEIGHTS, ModelConfig, identify, read_config, sha256

CARD = "README.md"
# BatchNorm's statistics are stored beside the parameters, and are none.
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def read_facts(directory: Path) -> dict[str, Any]:
    """Everything that is known of the checkpoint in `directory`, as JSON's own types.

    Units: rates in Hz, step in s, speeds in m/s. robots.fit: for each robot in config/robots None, or why it does not.
    Raises InputError where a file is missing, or the configuration or the weights' header cannot be read.
    """
    config = read_config(directory)
    parameters = count_parameters(directory / WEIGHTS)
    frozen = frozen_encoder(config, directory)
    values = config.model_dump(mode="json")
    return {
        "name": config.name,
        "directory": str(directory),
        "model_id": identify(directory),
        "schema_version": config.schema_version,
        **outline(config),
        "files": {name: file_facts(directory / name) for name in (CONFIG, WEIGHTS)},
        "parameters": parameters | {"total": sum(parameters.values())},
        "frozen_encoder": frozen,
        "max_speed": config.action.max_speed,
        "history": config.history,
        **{key: values[key] for key in ("encoder", "predictor", "policy", "preprocessing", "cameras", "camera")},
        "proprioception": list(config.proprioception.joints + config.proprioception.gripper),
        "distance": values["distance"],
        "surprise": values["surprise"],
        "robots": {"trained_for": list(config.robots), "fit": robots_that_fit(config)},
        "card": card_tables(directory / CARD),
    }


def file_facts(path: Path) -> dict[str, Any]:
    """Size in bytes and SHA-256 of a file."""
    return {"bytes": path.stat().st_size, "sha256": sha256(path)}


def count_parameters(path: Path, prefix: str = "") -> dict[str, int]:
    """Parameters by part in a safetensors file, of the tensors under `prefix`, from its header alone.

    The parts are model.<part> and policy. Raises InputError where the file is missing or cannot be read.
    """
    if not path.is_file():
        raise InputError(f"model {path}: expected the weights in safetensors format, found no such file")
    parts: dict[str, int] = {}
    try:
        with safe_open(path, "numpy") as file:
            for key in file.keys():
                if key.startswith(prefix) and not key.endswith(STATISTICS):
                    part = key.removeprefix("model.").split(".")[0]
                    parts[part] = parts.get(part, 0) + math.prod(file.get_slice(key).get_shape())
    except (SafetensorError, OSError) as error:
        raise InputError(f"model {path}: expected a safetensors file, found one that cannot be read: {error}") from None
    return parts


def frozen_encoder(config: ModelConfig, directory: Path) -> dict[str, Any] | None:
    """Directory, kind and parameters of a frozen encoder, and whether its SHA-256 is the configured one; None where the
    encoder was trained with the model. Raises InputError where its files cannot be read."""
    if config.encoder.type != "transformers":
        return None
    from jepa_ros.world_model.frozen_encoder import read_kind, weight_files, weights_digest

    place = directory / config.encoder.directory
    kind = read_kind(place)
    prefix = "encoder." if kind == "vjepa2" else ""  # its other tensors are of a predictor that has no use here
    counts = [sum(count_parameters(path, prefix).values()) for path in weight_files(place)]
    return {
        "directory": str(place),
        "kind": kind,
        "parameters": sum(counts),
        "expected_sha256": config.encoder.sha256,
        "sha256": weights_digest(place),
    }


def robots_that_fit(config: ModelConfig) -> dict[str, str | None]:
    """For each robot in config/robots: None where the model fits it, or one line that says why not."""
    found: dict[str, str | None] = {}
    for name in list_robots():
        try:
            check_robot(config, load_robot(name))
            found[name] = None
        except InputError as error:
            found[name] = str(error)
    return found


def card_tables(path: Path) -> list[dict[str, list]]:
    """The tables of a model card (Markdown), each {"columns": [...], "rows": [[...], ...]}; none without a card.

    Raises InputError where the card is not text.
    """
    if not path.is_file():
        return []
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError:
        raise InputError(f"model {path}: expected a card in UTF-8, found other bytes") from None
    tables: list[dict[str, list]] = []
    table = None
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        if not line.startswith("|"):
            table = None
        elif table is not None:
            if not _rule(line):
                table["rows"].append(_cells(line, len(table["columns"])))
        elif _rule(after):
            table = {"columns": _cells(line), "rows": []}
            tables.append(table)
    return tables


def _rule(line: str) -> bool:
    return re.fullmatch(r"\|(\s*:?-+:?\s*\|)+", line) is not None


def _cells(line: str, count: int | None = None) -> list[str]:
    cells = [cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line.removeprefix("|"))]
    cells = cells[:-1] if cells and not cells[-1] else cells
    return cells if count is None else (cells + [""] * count)[:count]
