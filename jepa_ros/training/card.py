"""Documents of a trained model: the report with its curves, and the model card that ships with the checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from jepa_ros.datasets.episodes import EpisodeSet
from jepa_ros.datasets.store import Dataset, is_dataset
from jepa_ros.reporting import plots
from jepa_ros.reporting.report import Report
from jepa_ros.text_files import write_atomically
from jepa_ros.training.heads import Heads
from jepa_ros.training.heads_report import evaluate_heads, head_rows, write_heads
from jepa_ros.training.logs import draw_curves
from jepa_ros.training.trainer import TrainingProgress
from jepa_ros.world_model.config import ModelConfig

SHOWN_FRAMES = 8


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
    report.section("Loss and health").plot(_plot_losses(progress))
    report.plot(
        _plot_health(progress), "On validation episodes. The checkpoint has the weights of the least three-step error."
    )
    report.section("Latent distance by tool distance").plot(
        _plot_distances(latents, data, config),
        "Pairs of validation frames. Beyond a few centimetres the latent distance is flat; there the policy guides the "
        "search.",
    )
    write_heads(report, config, heads, evaluate_heads(heads, latents, data, config.block, seed), latents, data, seed)
    report.section("Test episodes").table(list(test.items()), ["metric", "value"])
    step = len(data.frames) // SHOWN_FRAMES
    numbers = range(0, SHOWN_FRAMES * step, step)
    views = data.frames[numbers].reshape(len(numbers), -1, *data.frames.shape[-3:])
    report.section("Input images of the model").images(
        [(f"validation frame {i}", list(images)) for i, images in zip(numbers, views, strict=True)]
    )
    report.write(path)


def _plot_losses(progress: TrainingProgress):
    fig, (left, right) = plots.figure(2)
    names = {name: name for name in ("one_step", "rollout", "proprioception")}
    draw_curves(left, progress.curve, names, "Prediction losses", yscale="log")
    draw_curves(right, progress.curve, {"anti_collapse": ""}, "Regulariser against collapse", yscale="log")
    return fig


def _plot_health(progress: TrainingProgress):
    fig, (left, right) = plots.figure(2)
    names = {name: name for name in ("error_ratio@1", "error_ratio@3")}
    draw_curves(left, progress.validation, names, "Prediction error ÷ persistence baseline", yscale="log")
    draw_curves(right, progress.validation, {"effective_rank": ""}, "Effective rank")
    return fig


def _plot_distances(latents: torch.Tensor, data: EpisodeSet, config: ModelConfig):
    rng = np.random.default_rng(0)
    first, second = rng.integers(len(latents), size=(2, 4000))
    apart = np.linalg.norm(data.tool[first] - data.tool[second], axis=1)
    distance = (latents[first] - latents[second]).square().mean(1).numpy()
    fig, axes = plots.figure()
    axes.plot(100 * apart, distance, ".", ms=2, alpha=0.4)
    axes.axhline(config.distance.tolerance, lw=1, ls="--")
    axes.set(title="Latent distance", xlabel="tool distance (cm)", ylabel="mean square over D", yscale="log")
    return fig


def write_card(path: Path, config: ModelConfig, summary: dict, data: Path) -> None:
    """Write the model card. Success rates are added by hand, from the output of `jepa_ros evaluate sim`."""
    test, options, recipe = summary["test"], summary["options"], summary["options"]["recipe"]
    ratios = ", ".join(f"{k.split('@')[1]}: {100 * v:.1f} %" for k, v in test.items() if k.startswith("error_ratio"))
    hours = summary["training_s"] / 3600
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
        f"    {_data_command(data, sum(counts.values()))}",
        f"    jepa_ros train model --data {data} --recipe {summary['recipe']} --seed {options['seed']}",
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


def _data_command(data: Path, episodes: int) -> str:
    """Return the command that made the data."""
    if not is_dataset(data):
        return f"jepa_ros collect sim --episodes {episodes} --seed {recorded_seed(data)} --out {data}"
    bags = Dataset(data).index.bags
    return f"jepa_ros data build {' '.join(bags[:3])}{' ...' if len(bags) > 3 else ''} --out {data}"


def recorded_seed(data: Path) -> str:
    """Return the seed that a bag was collected with, or a question mark if it is unknown."""
    recipe = data / "recipe.json"
    return str(json.loads(recipe.read_text())["seed"]) if recipe.exists() else "?"
