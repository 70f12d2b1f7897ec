"""What a person reads of a training: the report with its curves, and the card that ships with the checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from jepa_ros.datasets.episodes import EpisodeSet
from jepa_ros.datasets.store import Dataset, is_dataset
from jepa_ros.reporting import plots
from jepa_ros.reporting.report import Report
from jepa_ros.training.heads import Heads
from jepa_ros.training.heads_report import evaluate_heads, head_rows, write_heads
from jepa_ros.training.loop import Progress
from jepa_ros.world_model.config import ModelConfig


def write_report(
    path: Path,
    config: ModelConfig,
    summary: dict,
    progress: Progress,
    heads: Heads,
    latents: torch.Tensor,
    data: EpisodeSet,
) -> None:
    """report.html. latents: (N, *L) of the validation episodes `data`."""
    test, seed = summary["test"], summary["options"]["seed"]
    report = Report(f"Training of {config.name}", f"seed {seed}, model {summary['model_id']}")
    report.tiles(
        {
            "probe R² of the tool (test)": f"{test['probe_r2']:.4f}",
            "1-step error of persistence": f"{100 * test['error_ratio@1']:.1f} %",
            "3-step error of persistence": f"{100 * test['error_ratio@3']:.1f} %",
            "effective rank": f"{test['effective_rank']:.1f} of {config.latent_shape[-1]}",
            "frames/s": round(summary["frames_per_s"]),
        }
    )
    report.section("Loss and health").plot(_losses(progress))
    report.plot(_health(progress), "On validation episodes. The checkpoint is the one of least three-step error.")
    report.section("What the latent distance says of the distance").plot(
        _distances(latents, data, config),
        "Pairs of validation frames. Beyond a few centimetres the distance is flat: there the policy leads.",
    )
    write_heads(report, config, heads, evaluate_heads(heads, latents, data, config.block, seed), latents, data, seed)
    rows = [(k, v) for k, v in test.items()]
    report.section("Test episodes").table(rows, ["figure", "value"])
    shown = range(0, 8 * (len(data.frames) // 8), len(data.frames) // 8)
    views = data.frames[shown].reshape(len(shown), -1, *data.frames.shape[-3:])
    report.section("What the model sees").images(
        [(f"validation frame {i}", list(pictures)) for i, pictures in zip(shown, views, strict=True)]
    )
    report.write(path)


def _losses(progress: Progress):
    fig, (left, right) = plots.figure(2)
    updates = [c["update"] for c in progress.curve]
    for key in ("one_step", "rollout", "proprioception"):
        if progress.curve and key in progress.curve[0]:
            left.plot(updates, [c[key] for c in progress.curve], label=key, lw=1)
    left.set(title="Prediction losses", xlabel="update", yscale="log")
    left.legend()
    if progress.curve and "anti_collapse" in progress.curve[0]:
        right.plot(updates, [c["anti_collapse"] for c in progress.curve], lw=1)
    right.set(title="Regulariser against collapse", xlabel="update", yscale="log")
    return fig


def _health(progress: Progress):
    fig, (left, right) = plots.figure(2)
    updates = [v["update"] for v in progress.validation]
    for key in ("error_ratio@1", "error_ratio@3"):
        left.plot(updates, [v[key] for v in progress.validation], label=key)
    left.set(title="Error over the error of nothing changes", xlabel="update", yscale="log")
    left.legend()
    right.plot(updates, [v["effective_rank"] for v in progress.validation], label="effective rank")
    right.set(title="Effective rank", xlabel="update")
    return fig


def _distances(latents: torch.Tensor, data: EpisodeSet, config: ModelConfig):
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
    """The model card; success figures are added by hand from `jepa_ros evaluate sim`, whose command it names."""
    test, options, recipe = summary["test"], summary["options"], summary["options"]["recipe"]
    ratios = ", ".join(f"{k.split('@')[1]}: {100 * v:.1f} %" for k, v in test.items() if k.startswith("error_ratio"))
    hours = summary["training_s"] / 3600
    counts, frames, size = summary["episodes"], summary["frames"], summary["parameters"]
    rows = {
        "R² of a linear probe of the tool position on the pixel latent": f"{test['probe_r2']:.4f}",
        'open-loop error over the error of "nothing changes", by model step': ratios,
        "one-step error with shuffled actions over the true one's": f"{test['action_sensitivity']:.1f}",
        "effective rank": f"{test['effective_rank']:.1f} of {config.latent_shape[-1]}",
        "dead dimensions": f"{100 * test['dead_dimensions']:.0f} %",
        **head_rows(summary["heads"]),
    }
    lines = [
        f"# {config.name}",
        "",
        f"A joint-embedding predictive world model (family {config.family}) of {', '.join(config.robots)}: frames of",
        f"{config.preprocessing.size} px ({', '.join(config.cameras)}) become latents of",
        f"{' x '.join(map(str, config.latent_shape))} numbers, and the next one, {config.step:g} s later, is predicted",
        f"from {config.history} and the actions between them. Against collapse: {recipe['anti_collapse']}. No pixels",
        "are generated, no expert was watched. Parameters:",
        f"{', '.join(f'{part} {count:,}' for part, count in size.items())}.",
        "",
        "Made by",
        "",
        f"    {_made_by(data, sum(counts.values()))}",
        f"    jepa_ros train model --data {data} --recipe {summary['recipe']} --seed {options['seed']}",
        "",
        f"from {frames['train']} training frames of {counts['train']} episodes (validation {counts['val']}, test",
        f"{counts['test']}; split by episode), in {hours:.2f} h on {summary['torch_threads']} CPU core",
        f"({summary['frames_per_s']:.0f} frames/s). Chosen on validation at update {summary['chosen_update']}.",
        "On the test episodes:",
        "",
        "| figure | value |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in rows.items()),
        "",
    ]
    path.write_text("\n".join(lines))


def _made_by(data: Path, episodes: int) -> str:
    """The command that the data come from."""
    if not is_dataset(data):
        return f"jepa_ros collect sim --episodes {episodes} --seed {recorded_seed(data)} --out {data}"
    bags = Dataset(data).index.bags
    return f"jepa_ros data build {' '.join(bags[:3])}{' ...' if len(bags) > 3 else ''} --out {data}"


def recorded_seed(data: Path) -> str:
    """The seed that a bag was collected with, or a question mark for bags that do not say."""
    recipe = data / "recipe.json"
    return str(json.loads(recipe.read_text())["seed"]) if recipe.exists() else "?"
