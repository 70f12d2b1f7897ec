"""Report of a pre-training: loss and health curves, masks over images, and principal components of the features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from jepa_ros.reporting import plots
from jepa_ros.reporting.report import Report
from jepa_ros.training.logs import draw_curves
from jepa_ros.training.pretraining.clips import normalize_clips
from jepa_ros.training.pretraining.loop import MIN_RANK, MIN_SPREAD, Pretrainer
from jepa_ros.training.pretraining.masking import Masks
from jepa_ros.training.pretraining.models import TUBELET, MaskedPredictor
from jepa_ros.training.trainer import TrainingProgress

SHOWN_CLIPS = 6
NAMES = {"vjepa": "V-JEPA", "ijepa": "I-JEPA"}
PREDICTED_GREY = 96
"""Pixel value, up to 255, of patches that are predicted."""


def write_report(path: Path, trainer: Pretrainer, summary: dict) -> None:
    """Write report.html of a finished or stopped trainer. summary: of summary.json."""
    p, sizes, last = trainer.progress, trainer.model.sizes, trainer.progress.validation[-1]
    report = Report(f"Pre-training with {NAMES[sizes.method]}", f"seed {trainer.seed}, {p.update} updates")
    if p.stopped:
        report.text(f"**{p.stopped[0].upper()}{p.stopped[1:]}.** No encoder was written.")
    report.tiles(
        {
            "loss on held-out clips": f"{last['loss']:.3f}",
            "effective rank": f"{last['effective_rank']:.1f} of {sizes.width}",
            "dead dimensions": f"{100 * last['dead_dimensions']:.0f} %",
            "training frames": trainer.train.frames,
            "frames/s": round(summary["frames_per_s"]),
        },
        good={"effective rank": not p.stopped},
    )
    report.section("Loss and health").plot(_plot_losses(trainer.model, p))
    report.plot(
        _plot_health(p),
        "On held-out clips, of the teacher's tokens. Losses may rise while features become richer, because the targets "
        f"move; a rank below {MIN_RANK:g} or a spread below {MIN_SPREAD:g} is a collapse.",
    )
    clips = trainer.held[np.unique(np.linspace(0, len(trainer.held) - 1, SHOWN_CLIPS).astype(int))]
    report.section("Masks").text(
        "The encoder sees the patches that are shown; grey ones are predicted, black ones neither seen nor predicted."
    )
    report.images(_draw_masked_clips(trainer.model, clips, np.random.default_rng([trainer.seed, 9])))
    report.section("Features").text(
        "Held-out images beside the first three principal components of their patch features, as red, green and blue: "
        "patches of the same colour have similar features."
    )
    pairs = zip(clips[:, 0], component_images(trainer.model, clips), strict=True)
    report.images([(f"held-out clip {i + 1}", list(pair)) for i, pair in enumerate(pairs)], width=160)
    report.section("Last validation").table(list(last.items()), ["metric", "value"])
    report.section("Options").table([(k, str(v)) for k, v in summary["options"].items()], ["option", "value"])
    report.write(path)


def _plot_losses(model: MaskedPredictor, progress: TrainingProgress):
    fig, axes = plots.figure()
    names = {name: f"{name.replace('_', ' ')}, training" for name in model.groups}
    draw_curves(axes, progress.curve, names, "Prediction loss", yscale="log")
    draw_curves(axes, progress.validation, {"loss": "held out"}, "Prediction loss", yscale="log")
    return fig


def _plot_health(progress: TrainingProgress):
    fig, (left, right) = plots.figure(2)
    ranks = {"effective_rank": "of tokens", "pooled_rank": "of their means over an image"}
    draw_curves(left, progress.validation, ranks, "Effective rank", ylim=(0, None))
    shares = {"spread": "spread", "dead_dimensions": "dead dimensions"}
    draw_curves(right, progress.validation, shares, "Spread of tokens, share of dead dimensions", ylim=(0, 1))
    return fig


def _draw_masked_clips(
    model: MaskedPredictor, clips: np.ndarray, rng: np.random.Generator
) -> list[tuple[str, list[np.ndarray]]]:
    """Return each kind of mask over the first clips, an image for each token in time."""
    clips = clips[:2]
    return [
        (f"{kind.replace('_', ' ')}, held-out clip {i + 1}", mask_images(clip, masks, i, model.sizes.grid))
        for kind, masks in zip(model.groups, model.draw_masks(len(clips), rng), strict=True)
        for i, clip in enumerate(clips)
    ]


def mask_images(clip: np.ndarray, masks: Masks, row: int, grid: int) -> list[np.ndarray]:
    """Return images (S, S, 3) of a clip (T, S, S, 3) uint8, one for each token in time, under the masks of a row."""
    steps = max(1, len(clip) // TUBELET)
    state = np.zeros(steps * grid * grid, int)  # 0: left out, 1: predicted, 2: seen
    state[masks.targets[row].ravel()] = 1
    state[masks.context[row]] = 2
    patch = clip.shape[1] // grid
    images = []
    for image, step in zip(clip[:: max(1, len(clip) // steps)], state.reshape(steps, grid, grid), strict=True):
        shown = np.kron(step, np.ones((patch, patch), int))[..., None]
        images.append(np.where(shown == 2, image, np.where(shown == 1, PREDICTED_GREY, 0)).astype(np.uint8))
    return images


@torch.no_grad()
def component_images(model: MaskedPredictor, clips: np.ndarray) -> list[np.ndarray]:
    """Return images (S, S, 3) uint8 whose colours are the first three principal components of the patch features.

    clips: (B, T, S, S, 3) uint8; only the first tokens in time are shown. The components are of all clips together.
    """
    grid = model.sizes.grid
    tokens = model.features(normalize_clips(clips))[:, : grid * grid]
    rows = tokens.flatten(0, 1)
    rows = rows - rows.mean(0)
    _, _, axes = torch.linalg.svd(rows, full_matrices=False)
    values = (rows @ axes[:3].T).numpy()
    low, high = np.percentile(values, (2, 98), axis=0)
    colours = np.clip((values - low) / np.maximum(high - low, 1e-9), 0, 1) * 255
    patches = colours.astype(np.uint8).reshape(len(clips), grid, grid, 3)
    return [np.kron(p, np.ones((model.sizes.patch, model.sizes.patch, 1), np.uint8)) for p in patches]
