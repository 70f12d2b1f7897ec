"""report.html of a dataset: its size, what was dropped and why, lengths of episodes, and example frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jepa_ros.datasets.store import Dataset, Index


def write_report(out: Path, index: Index, summary: dict) -> None:
    """Write report.html of the dataset in `out`."""
    from jepa_ros.reporting import plots
    from jepa_ros.reporting.report import Report

    data = Dataset(out)
    report = Report("Training data", f"{len(index.bags)} bags at {index.layout.rate:g} Hz, {index.layout.size} px")
    report.tiles(
        {
            "episodes": sum(summary["episodes"].values()),
            "frames": sum(summary["frames"].values()),
            "images in the bags": summary["pictures"],
            "actions": f"{index.layout.action_space}, {len(index.layout.action_names)} values",
        }
    )
    rows = [(b["bag"], b["episodes"], b["frames"], sum(b["dropped"].values())) for b in summary["bags"]]
    report.section("Bags").table(rows, ["bag", "episodes", "frames", "dropped"])
    if summary["dropped"]:
        report.section("Dropped").table([(n, why) for why, n in summary["dropped"].items()], ["number", "why"])
    fig, axes = plots.figure()
    axes.hist([e.frames / index.layout.rate for e in index.episodes], bins=40)
    axes.set(title="Episode length", xlabel="s", ylabel="episodes")
    report.section("Episodes").plot(fig)
    shown = index.episodes[:: max(1, len(index.episodes) // 8)][:8]
    images = [(f"episode {e.number}, {e.split}", list(np.array(data.rows(e, "frames")[0]))) for e in shown]
    report.section("Frames as the model sees them").images(images)
    report.write(out / "report.html")
