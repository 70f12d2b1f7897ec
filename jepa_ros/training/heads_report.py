"""Evaluation of a model's heads on episodes that they were not trained on: metrics and plots."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from scipy.stats import spearmanr

from jepa_ros.datasets.episodes import EpisodeSet
from jepa_ros.reporting import plots
from jepa_ros.reporting.report import Report
from jepa_ros.training.heads import Heads, positions
from jepa_ros.training.logs import draw_curves
from jepa_ros.world_model.config import ModelConfig
from jepa_ros.world_model.heads import JOINTS, GoalPolicy, Reachability

PAIRS = 20_000
SAME_PLACE_M = 0.005
"""Two frames whose tools are closer than this are at the same place."""
TICKS_TO_GO = (0, 1, 2, 4, 8, 12, 16, 24, 32, 40)


@torch.inference_mode()
def evaluate_heads(heads: Heads, latents: torch.Tensor, data: EpisodeSet, block: int, seed: int) -> dict:
    """Return metrics on the episodes `data` with latents (N, *L).

    reachability_spearman: rank correlation of predicted ticks to go with the tool's distance, of random pairs.
    reachability_same_place_ticks: median prediction for tools within SAME_PLACE_M; None if there are no such pairs.
    policy_error: root mean square error of actions (of 1) by ticks to go; 0 is the goal itself.
    probe_error: by name, in m, or rad for joints.
    """
    figures: dict = {"probe_error": {name: probe.error for name, probe in heads.probes.items()}}
    if heads.reachability is not None:
        ticks, apart = predicted_ticks(heads.reachability, latents, data, seed)
        same = ticks[apart < SAME_PLACE_M]
        moved = ticks.std() > 0 and apart.std() > 0
        figures["reachability_spearman"] = float(spearmanr(ticks, apart)[0]) if moved else None
        figures["reachability_same_place_ticks"] = float(np.median(same)) if len(same) else None
    if heads.policy is not None:
        figures["policy_error"] = policy_errors(heads.policy, latents, data, block)
    return figures


@torch.inference_mode()
def predicted_ticks(
    reachability: Reachability, latents: torch.Tensor, data: EpisodeSet, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return (n,) predicted ticks to go and (n,) m between the tools, of random pairs of different frames."""
    first, second = np.random.default_rng(seed).integers(len(data), size=(2, PAIRS))
    first, second = first[first != second], second[first != second]
    states = torch.from_numpy(data.states[first])
    parts = [slice(i, i + 1024) for i in range(0, len(first), 1024)]  # in parts, to save memory
    ticks = [reachability(latents[first[p]].flatten(1), latents[second[p]].flatten(1), states[p]) for p in parts]
    return torch.cat(ticks).numpy(), np.linalg.norm(data.tool[first] - data.tool[second], axis=1)


@torch.inference_mode()
def policy_errors(
    policy: GoalPolicy, latents: torch.Tensor, data: EpisodeSet, block: int, count: int = 2048
) -> dict[str, float]:
    """Return the root mean square error of actions by ticks to go, as in `policy_loss`, over up to `count` ticks."""
    errors = {}
    for ticks in TICKS_TO_GO:
        room = max(ticks, block)
        rows = [data.index(np.full(n, e), np.arange(n)) for e, n in enumerate(np.maximum(data.lengths - room + 1, 0))]
        now = np.concatenate(rows)[:: max(1, sum(map(len, rows)) // count)]
        if not len(now) or ticks > policy.max_ticks:
            continue
        before = (np.arange(block) < ticks)[:, None]
        wanted = torch.from_numpy(data.actions[now[:, None] + np.arange(block)] * before).flatten(1)
        goal = latents[now + ticks].flatten(1)
        time = torch.full((len(now),), float(ticks))
        found = policy(latents[now].flatten(1), goal, torch.from_numpy(data.states[now]), time)
        errors[str(ticks)] = float((found - wanted).square().mean().sqrt())
    return errors


def write_heads(
    report: Report,
    config: ModelConfig,
    heads: Heads,
    figures: Mapping,
    latents: torch.Tensor,
    data: EpisodeSet,
    seed: int,
) -> None:
    """Add the sections on the heads to a report. latents (N, *L), data: of the episodes that `figures` came from."""
    if heads.curve:
        report.section("Policy and learned distance").plot(
            _plot_curves(heads), "The weights of the least validation loss are kept."
        )
    if heads.reachability is not None:
        ticks, apart = predicted_ticks(heads.reachability, latents, data, seed)
        report.section("Ticks to go").plot(
            _plot_ticks(ticks[:4000], apart[:4000]),
            f"Random pairs of frames. Rank correlation {figures['reachability_spearman'] or 0:.3f}.",
        )
    if heads.policy is not None:
        report.section("Error of the policy").plot(
            _plot_errors(figures["policy_error"]),
            "Far from the goal play may take many ways, so the action is uncertain; in the last centimetres it is not.",
        )
    places = positions(config, data)
    for name, probe in ((name, heads.probes[name]) for name in places):
        report.section(f"Probe of {name}").plot(
            _plot_probe(name, probe.read(latents).numpy(), places[name]),
            f"Root mean square error {_format_error(name, probe.error)}, by a linear map of the pixel latent.",
        )


def head_rows(figures: Mapping) -> dict[str, str]:
    """Return the rows on the heads in cards, reports and results: text by name."""
    rows = {
        f"error of the probe of {name} (root mean square)": _format_error(name, error)
        for name, error in figures["probe_error"].items()
    }
    if figures.get("reachability_spearman") is not None:
        rows["rank correlation of predicted ticks to go with the tool's distance"] = (
            f"{figures['reachability_spearman']:.3f}"
        )
    for ticks in ("0", "8"):
        if ticks in figures.get("policy_error", {}):
            rows[f"error of the policy's actions (of 1), {ticks} ticks before the goal"] = (
                f"{figures['policy_error'][ticks]:.3f}"
            )
    return rows


def count_head_parameters(heads: Heads) -> dict[str, int]:
    """Return the number of parameters by head."""
    sizes = {}
    for name, head in (("policy", heads.policy), ("reachability", heads.reachability)):
        if head is not None:
            sizes[name] = sum(p.numel() for p in head.parameters())
    return sizes


def _plot_curves(heads: Heads):
    names = [name for name in ("policy", "reachability") if name in heads.curve[0]]
    fig, axes = plots.figure(len(names))
    titles = {"policy": "Mean square error of actions", "reachability": "Quantile loss (ticks)"}
    for ax, name in zip(np.atleast_1d(axes), names, strict=True):
        draw_curves(ax, heads.curve, {name: "training", f"{name}_val": "validation"}, titles[name])
    return fig


def _plot_ticks(ticks: np.ndarray, apart: np.ndarray):
    fig, axes = plots.figure()
    axes.plot(100 * apart, ticks, ".", ms=2, alpha=0.4)
    axes.set(title="Predicted ticks to go", xlabel="tool distance (cm)", ylabel="control ticks")
    return fig


def _plot_errors(errors: Mapping[str, float]):
    fig, axes = plots.figure()
    axes.plot([int(k) for k in errors], list(errors.values()), marker="o")
    axes.set(title="Error of actions (of 1)", xlabel="ticks to go")
    return fig


def _format_error(name: str, error: float) -> str:
    return f"{np.degrees(error):.2f}°" if name == JOINTS else f"{100 * error:.2f} cm"


def _plot_probe(name: str, found: np.ndarray, true: np.ndarray):
    scale, unit = (np.degrees(1.0), "°") if name == JOINTS else (100, "cm")
    titles = [f"joint {k + 1}" for k in range(true.shape[1])] if name == JOINTS else "xyz"
    is_known = np.isfinite(true).all(1)
    found, true = found[is_known], true[is_known]
    step = max(1, len(true) // 2000)
    fig, axes = plots.figure(true.shape[1])
    for ax, k, title in zip(np.atleast_1d(axes), range(true.shape[1]), titles, strict=False):
        ax.plot(scale * true[::step, k], scale * found[::step, k], ".", ms=2, alpha=0.4)
        ax.set(title=title, xlabel=f"true ({unit})", ylabel=f"read ({unit})")
    return fig
