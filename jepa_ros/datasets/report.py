"""What a person reads of a dataset: a table on the terminal, and report.html."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jepa_ros.datasets.store import Dataset, Index


def show(summary: dict) -> None:
    """One table of what was kept and what was dropped, by bag and reason."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{sum(summary['episodes'].values())} episodes, {sum(summary['frames'].values())} frames")
    for name, side in (
        ("bag", "left"),
        ("episodes", "right"),
        ("frames", "right"),
        ("dropped", "right"),
        ("why", "left"),
    ):
        table.add_column(name, justify=side)
    for bag in summary["bags"]:
        head = [bag["bag"], str(bag["episodes"]), str(bag["frames"])]
        reasons = [*((str(n), why) for why, n in bag["dropped"].items()), *(("", p) for p in bag["problems"])]
        for number, why in reasons or [("", "nothing dropped")]:
            table.add_row(*head, number, why)
            head = ["", "", ""]
    Console().print(table)


def write_report(out: Path, index: Index, summary: dict) -> None:
    """report.html: figures, what was dropped and why, lengths of episodes, and what a model will see."""
    from jepa_ros.reporting import plots
    from jepa_ros.reporting.report import Report

    data = Dataset(out)
    report = Report("Training data", f"{len(index.bags)} bags at {index.layout.rate:g} Hz, {index.layout.size} px")
    report.tiles(
        {
            "episodes": sum(summary["episodes"].values()),
            "frames": sum(summary["frames"].values()),
            "pictures in the bags": summary["pictures"],
            "actions": f"{index.layout.action_space}, {len(index.layout.action_names)} numbers",
        }
    )
    rows = [(b["bag"], b["episodes"], b["frames"], sum(b["dropped"].values())) for b in summary["bags"]]
    report.section("Bags").table(rows, ["bag", "episodes", "frames", "dropped"])
    if summary["dropped"]:
        report.section("Dropped").table([(n, why) for why, n in summary["dropped"].items()], ["number", "why"])
    fig, axes = plots.figure()
    axes.hist([e.frames / index.layout.rate for e in index.episodes], bins=40)
    axes.set(title="Length of episodes", xlabel="s", ylabel="episodes")
    report.section("Episodes").plot(fig)
    shown = index.episodes[:: max(1, len(index.episodes) // 8)][:8]
    pictures = [(f"episode {e.number}, {e.split}", list(np.array(data.rows(e, "frames")[0]))) for e in shown]
    report.section("What a model sees").images(pictures)
    report.write(out / "report.html")
