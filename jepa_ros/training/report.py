"""Documents of a trained model: evaluation of its heads, the report with its curves, and the model card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr

from jepa_ros.datasets.episodes import EpisodeSet
from jepa_ros.datasets.store import Dataset, is_dataset
from jepa_ros.planning.goal import latent_distance_pairs
from jepa_ros.reporting import plots
from jepa_ros.reporting.report import Report
from jepa_ros.text_files import write_atomically
from jepa_ros.training.heads import Heads, positions
from jepa_ros.training.trainer import TrainingProgress, draw_curves
from jepa_ros.world_model.config import ModelConfig
from jepa_ros.world_model.heads import JOINTS, GoalPolicy, Reachability

PAIRS = 20_000
SAME_PLACE_M = 0.005  # two frames whose tools are closer than this are at the same place
SHOWN_FRAMES = 8
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


def add_head_sections(
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
            _plot_by_distance(apart[:4000], ticks[:4000], title="Predicted ticks to go", ylabel="control ticks")[0],
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
    if (correlation := figures.get("reachability_spearman")) is not None:
        rows["rank correlation of predicted ticks to go with the tool's distance"] = f"{correlation:.3f}"
    for ticks in ("0", "8"):
        if (error := figures.get("policy_error", {}).get(ticks)) is not None:
            rows[f"error of the policy's actions (of 1), {ticks} ticks before the goal"] = f"{error:.3f}"
    return rows


def count_head_parameters(heads: Heads) -> dict[str, int]:
    """Return the number of parameters by head."""
    named = {"policy": heads.policy, "reachability": heads.reachability}
    return {name: sum(p.numel() for p in head.parameters()) for name, head in named.items() if head is not None}


def _plot_curves(heads: Heads):
    names = [name for name in ("policy", "reachability") if name in heads.curve[0]]
    fig, axes = plots.figure(len(names))
    titles = {"policy": "Mean square error of actions", "reachability": "Quantile loss (ticks)"}
    for ax, name in zip(np.atleast_1d(axes), names, strict=True):
        draw_curves(ax, heads.curve, {name: "training", f"{name}_val": "validation"}, titles[name])
    return fig


def _plot_by_distance(apart: np.ndarray, values: np.ndarray, **settings: str):
    """Return a figure with a dot for each pair of frames, and its axes. apart: m between the tools."""
    fig, axes = plots.figure()
    axes.plot(100 * apart, values, ".", ms=2, alpha=0.4)
    axes.set(xlabel="tool distance (cm)", **settings)
    return fig, axes


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


def write_report(
    path: Path,
    config: ModelConfig,
    summary: dict,
    progress: TrainingProgress,
    heads: Heads,
    latents: torch.Tensor,
    data: EpisodeSet,
) -> None:
    """Write report.html. latents: (N, *L) of the validation episodes `data`."""
    test, seed = summary["test"], summary["options"]["seed"]
    report = Report(f"Training of {config.name}", f"seed {seed}, model {summary['model_id']}")
    report.tiles(
        {
            "probe R² of the tool (test)": f"{test['probe_r2']:.4f}",
            "1-step error, of persistence": f"{100 * test['error_ratio@1']:.1f} %",
            "3-step error, of persistence": f"{100 * test['error_ratio@3']:.1f} %",
            "effective rank": f"{test['effective_rank']:.1f} of {config.latent_shape[-1]}",
            "frames/s": round(summary["frames_per_s"]),
        }
    )
    figure, (left, right) = plots.figure(2)
    names = {name: name for name in ("one_step", "rollout", "proprioception")}
    draw_curves(left, progress.curve, names, "Prediction losses", yscale="log")
    draw_curves(right, progress.curve, {"anti_collapse": ""}, "Regulariser against collapse", yscale="log")
    report.section("Loss and health").plot(figure)
    figure, (left, right) = plots.figure(2)
    names = {name: name for name in ("error_ratio@1", "error_ratio@3")}
    draw_curves(left, progress.validation, names, "Prediction error ÷ persistence baseline", yscale="log")
    draw_curves(right, progress.validation, {"effective_rank": ""}, "Effective rank")
    report.plot(figure, "On validation episodes. The checkpoint has the weights of the least three-step error.")
    report.section("Latent distance by tool distance").plot(
        _plot_distances(latents, data, config),
        "Pairs of validation frames. Beyond a few centimetres the latent distance is flat; there the policy guides the "
        "search.",
    )
    figures = evaluate_heads(heads, latents, data, config.block, seed)
    add_head_sections(report, config, heads, figures, latents, data, seed)
    report.section("Test episodes").table(list(test.items()), ["metric", "value"])
    step = len(data.frames) // SHOWN_FRAMES
    numbers = range(0, SHOWN_FRAMES * step, step)
    views = data.frames[numbers].reshape(len(numbers), -1, *data.frames.shape[-3:])
    report.section("Input images of the model").images(
        [(f"validation frame {i}", list(images)) for i, images in zip(numbers, views, strict=True)]
    )
    report.write(path)


def _plot_distances(latents: torch.Tensor, data: EpisodeSet, config: ModelConfig):
    rng = np.random.default_rng(0)
    first, second = rng.integers(len(latents), size=(2, 4000))
    apart = np.linalg.norm(data.tool[first] - data.tool[second], axis=1)
    distance = latent_distance_pairs(latents[first], latents[second])
    labels = {"title": "Latent distance", "ylabel": "mean square over D", "yscale": "log"}
    fig, axes = _plot_by_distance(apart, distance, **labels)
    axes.axhline(config.distance.tolerance, lw=1, ls="--")
    return fig


def write_card(path: Path, config: ModelConfig, summary: dict, data: Path) -> None:
    """Write the model card. Success rates are added by hand, from the output of `jepa_ros evaluate sim`."""
    test, options, recipe = summary["test"], summary["options"], summary["options"]["recipe"]
    ratios = ", ".join(f"{k.split('@')[1]}: {100 * v:.1f} %" for k, v in test.items() if k.startswith("error_ratio"))
    hours = summary["training_s"] / 3600
    command = f"jepa_ros collect sim --episodes {sum(summary['episodes'].values())} --seed {recorded_seed(data)}"
    command += _recorded_options(data)
    robot = "" if options["robot"] == "openarm" else f" --robot {options['robot']}"
    if is_dataset(data):
        bags = Dataset(data).index.bags
        command = f"jepa_ros data build {' '.join(bags[:3])}{' ...' * (len(bags) > 3)}"
    counts, frames, sizes = summary["episodes"], summary["frames"], summary["parameters"]
    rows = {
        "R² of a linear probe of the tool position on the pixel latent": f"{test['probe_r2']:.4f}",
        "open-loop prediction error ÷ persistence baseline, by model step": ratios,
        "one-step error with shuffled actions ÷ with the true actions": f"{test['action_sensitivity']:.1f}",
        "effective rank": f"{test['effective_rank']:.1f} of {config.latent_shape[-1]}",
        "dead dimensions": f"{100 * test['dead_dimensions']:.0f} %",
        **head_rows(summary["heads"]),
    }
    lines = [
        f"# {config.name}",
        "",
        f"A joint-embedding predictive world model (family {config.family}) of {', '.join(config.robots)}. It encodes",
        f"images of {config.preprocessing.size} px ({', '.join(config.cameras)}) into latents of",
        f"{' x '.join(map(str, config.latent_shape))} numbers and predicts the next latent, {config.step:g} s later,",
        f"from the last {config.history} and the actions between them. Method against collapse:",
        f"{recipe['anti_collapse']}. No pixels are generated and no demonstrations were used. Parameters:",
        f"{', '.join(f'{part} {count:,}' for part, count in sizes.items())}.",
        "",
        "Trained with",
        "",
        f"    {command} --out {data}",
        f"    jepa_ros train model --data {data} --recipe {summary['recipe']} --seed {options['seed']}{robot}",
        "",
        f"on {frames['train']} training frames of {counts['train']} episodes (validation {counts['val']}, test",
        f"{counts['test']}; split by episode), in {hours:.2f} h on {summary['torch_threads']} CPU core",
        f"({summary['frames_per_s']:.0f} frames/s). The weights are those of update {summary['chosen_update']}, the",
        "best on validation. On the test episodes:",
        "",
        *card_table(rows),
    ]
    write_atomically(path, "\n".join(lines))


def card_table(rows: Mapping[str, str]) -> list[str]:
    """Return the lines of a Markdown table of metrics."""
    return ["| metric | value |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items()), ""]


def recorded_seed(data: Path) -> str:
    """Return the seed that a bag was collected with, or a question mark if it is unknown."""
    recipe = data / "recipe.json"
    return str(json.loads(recipe.read_text())["seed"]) if recipe.exists() else "?"


def _recorded_options(data: Path) -> str:
    """Return the options with which a bag was collected in simulation, as far as they are not the defaults."""
    recipe = data / "recipe.json"
    found = json.loads(recipe.read_text()) if recipe.exists() else {}
    defaults = {"task": "reach", "robot": "openarm"}
    return "".join(f" --{key} {found[key]}" for key, value in defaults.items() if found.get(key, value) != value)
