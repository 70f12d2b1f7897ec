"""The commands `jepa_ros models ...`: they print what facts.py reads."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jepa_ros.checkpoints import facts as checkpoint_facts
from jepa_ros.checkpoints.formatting import (
    describe_facts,
    describe_latent_metrics,
    describe_robots,
    format_actions,
    format_shape,
)
from jepa_ros.reporting.result import print_result, print_table
from jepa_ros.resources import resolve_model

LIST_COLUMNS = ("name", "family", "latent", "actions", "step", "robots")


def print_models(*, as_json: bool) -> None:
    """Print a table of the shipped and the installed models, where each is, and why one cannot be used."""
    entries = checkpoint_facts.list_checkpoints()
    if as_json:
        return _print_json(entries)
    places = [
        (entry["name"], f"id {entry['model_id']}, {'shipped' if entry['origin'] == 'shipped' else entry['directory']}")
        for entry in entries
        if "model_id" in entry
    ]
    print_result(f"models: {len(entries)}", places, table=(LIST_COLUMNS, [_list_row(entry) for entry in entries]))
    for entry in entries:
        if entry["problem"]:
            print(f"{entry['name']} cannot be used: {entry['problem']}")


def _list_row(entry: dict[str, Any]) -> tuple[str, ...]:
    if "family" not in entry:
        return entry["name"], *["–"] * (len(LIST_COLUMNS) - 1)
    latent, robots = format_shape(entry["latent_shape"]), ", ".join(entry["robots"]) or "none yet"
    return entry["name"], entry["family"], latent, format_actions(entry), f"{entry['step']:g} s", robots


def inspect_model(
    *, model: str, data: Path | None, out: Path, episodes: int, robot: str | None, camera: Sequence[str], as_json: bool
) -> None:
    """Print what a checkpoint's files tell; with `data` also report on its latent space, into `out`."""
    directory = resolve_model(model)
    facts = checkpoint_facts.read_facts(directory)
    if data is not None:
        from jepa_ros.checkpoints.latent_report import report_latent_space

        facts["latent_space"] = report_latent_space(
            directory, facts, Path(data), Path(out), episodes, robot, tuple(camera)
        )
    if as_json:
        return _print_json(facts)
    print_result(f"{facts['name']}  ({directory})", describe_facts(facts))
    hashes = [(f"{name}: {file['bytes']:,} bytes, SHA-256", file["sha256"]) for name, file in facts["files"].items()]
    print_result("\nfiles", [line for pair in hashes for line in pair])
    print_table(("robot", "compatible"), describe_robots(facts), "\nrobots")
    for table in facts["card"]:
        print_table(table["columns"], table["rows"], "\nmodel card")
    if data is not None:
        metrics = facts["latent_space"]
        lines = [*describe_latent_metrics(metrics), *([metrics["collapse"]] if metrics["collapse"] else [])]
        print_result("\nlatent space", lines, [Path(out) / "report.html", Path(out) / "latent.png"])


def verify_model(*, model: str) -> None:
    """Load a checkpoint completely and print one line about it."""
    from jepa_ros.world_model.checkpoint import verify

    print(verify(resolve_model(model)))


def install_model(*, source: str, name: str | None, force: bool) -> None:
    """Copy a checkpoint to the user's models and print where it is."""
    from jepa_ros.checkpoints.install import install

    directory, is_new = install(source, name, force)
    print(f"{directory.name}: {'installed in' if is_new else 'the same model is there already:'} {directory}")


def _print_json(values: Any) -> None:
    sys.stdout.write(json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
