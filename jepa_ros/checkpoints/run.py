"""What `jepa_ros models ...` prints."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from jepa_ros.checkpoints import formatting as words
from jepa_ros.resources import resolve_model


def print_models(*, as_json: bool) -> None:
    """A table of the models that ship and of those that were installed; under it, what is wrong with one."""
    from jepa_ros.checkpoints.catalogue import catalogue

    entries = catalogue()
    if as_json:
        return _json(entries)
    _table(words.LIST_COLUMNS, [words.list_row(entry) for entry in entries])
    for entry in entries:
        if entry["problem"]:
            _say(f"{entry['name']} cannot be used: {entry['problem']}")


def inspect_model(
    *, model: str, data: Path | None, out: Path, episodes: int, robot: str | None, camera: Sequence[str], as_json: bool
) -> None:
    """Everything that a checkpoint's files say; with `data` also a picture of its latent space."""
    from jepa_ros.checkpoints.facts import read_facts

    directory = resolve_model(model)
    facts = read_facts(directory)
    if data is not None:
        from jepa_ros.checkpoints.latent_report import look

        facts["latent_space"] = look(directory, facts, Path(data), Path(out), episodes, robot, tuple(camera))
    if as_json:
        return _json(facts)
    _say(f"{facts['name']}  ({directory})")
    _grid(words.fact_rows(facts))
    _table(("file", "bytes", "SHA-256"), words.file_rows(facts))
    _table(("robot", "compatible"), words.robot_rows(facts))
    for table in facts["card"]:
        _table([f"card: {table['columns'][0]}", *table["columns"][1:]], table["rows"])
    if data is not None:
        _table(("latent space", ""), words.latent_rows(facts["latent_space"]))
        if facts["latent_space"]["collapse"]:
            _say(facts["latent_space"]["collapse"])
        _say(f"report: {Path(out) / 'report.html'}, picture: {Path(out) / 'latent.png'}")


def verify_model(*, model: str) -> None:
    """Load a checkpoint completely and say what it is."""
    from jepa_ros.world_model.checkpoint import verify

    _say(verify(resolve_model(model)))


def install_model(*, source: str, name: str | None, force: bool) -> None:
    """Copy a checkpoint to the user's models and say where it is."""
    from jepa_ros.checkpoints.install import install

    directory, new = install(source, name, force)
    _say(f"{directory.name}: {'installed in' if new else 'the same model is there already:'} {directory}")


def _console():
    from rich.console import Console

    width = None if sys.stdout.isatty() else 200  # files and pipes have room
    return Console(markup=False, highlight=False, emoji=False, width=width)


def _say(line: str) -> None:
    _console().print(line, soft_wrap=True)


def _json(values) -> None:
    sys.stdout.write(json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    _console().print(table)


def _grid(rows: Iterable[tuple[str, str]]) -> None:
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for row in rows:
        table.add_row(*row)
    _console().print(table)
