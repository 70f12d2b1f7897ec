"""The page and the plot of `jepa_ros bench offline`."""

from __future__ import annotations

from pathlib import Path

from jepa_ros.reporting import plots
from jepa_ros.reporting.report import Report

SHOWN = ("prediction_ratio@5", "probe_tool_p50_m", "plan_gap_ratio")


def write_report(out: Path, summary: dict) -> None:
    """report.html and offline.png in `out`."""
    low, high = summary["interval_95"]
    report = Report("Do offline figures tell?", f"{len(summary['models'])} models, {summary['goals']} goals each")
    report.tiles(
        {
            "rank correlation": f"{summary['rank_correlation']:.2f}",
            "95 % interval": f"{low:.2f} to {high:.2f}",
            "models near the best": f"{summary['near_the_best']} of {len(summary['models'])}",
        }
    )
    draw(summary).savefig(out / "offline.png", dpi=120, bbox_inches="tight")
    report.plot(draw(summary))
    columns = ["model", "score", "reached", "success", *SHOWN]
    rows = [
        [m["name"], m["score"], m["reached"], f"{100 * m['rate']:.1f} %", *(m["metrics"].get(name) for name in SHOWN)]
        for m in sorted(summary["models"], key=lambda m: -m["rate"])
    ]
    report.section("Models").table(rows, columns)
    report.write(out / "report.html")


def draw(summary: dict):
    """Success over score, with the intervals of success."""
    figure, axes = plots.figure(1)
    for data in dict.fromkeys(m["data"] for m in summary["models"]):
        some = [m for m in summary["models"] if m["data"] == data and m["score"] is not None]
        rates = [100 * m["rate"] for m in some]
        below = [max(0.0, r - 100 * m["interval_95"][0]) for r, m in zip(rates, some, strict=True)]
        above = [max(0.0, 100 * m["interval_95"][1] - r) for r, m in zip(rates, some, strict=True)]
        axes.errorbar([m["score"] for m in some], rates, yerr=[below, above], fmt="o", capsize=3, label=f"{data} data")
    axes.set(title="Success in closed loop over the score of a bag", xlabel="score", ylabel="goals reached (%)")
    axes.legend()
    return figure
