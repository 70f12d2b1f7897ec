"""What a person reads of a pre-training: its curves, what was hidden of the pictures, and what the features tell."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from jepa_ros.reporting import plots
from jepa_ros.reporting.report import Report
from jepa_ros.training.pretraining.clips import normalize_clips
from jepa_ros.training.pretraining.health import LEAST_RANK, LEAST_SPREAD
from jepa_ros.training.pretraining.loop import Pretrainer, Progress
from jepa_ros.training.pretraining.masking import Masks
from jepa_ros.training.pretraining.models import TUBELET, MaskedPredictor

PICTURES = 6
NAMES = {"vjepa": "V-JEPA", "ijepa": "I-JEPA"}
GREY = 96
"""Of what is hidden, on values up to 255."""


def write_report(path: Path, trainer: Pretrainer, summary: dict) -> None:
    """report.html of a trainer that is done, or that stopped. summary: of summary.json."""
    p, sizes, last = trainer.progress, trainer.model.sizes, trainer.progress.validation[-1]
    name = NAMES[sizes.method]
    report = Report(f"Pre-training with {name}", f"seed {trainer.seed}, {p.update} updates")
    if p.stopped:
        report.text(f"**{p.stopped[0].upper()}{p.stopped[1:]}.** No encoder was written.")
    report.tiles(
        {
            "loss on held-out clips": f"{last['loss']:.3f}",
            "effective rank": f"{last['effective_rank']:.1f} of {sizes.width}",
            "dead dimensions": f"{100 * last['dead_dimensions']:.0f} %",
            "frames to train on": trainer.train.frames,
            "frames/s": round(summary["frames_per_s"]),
        },
        good={"effective rank": p.stopped is None},
    )
    report.section("Loss and health").plot(_losses(trainer.model, p))
    report.plot(
        _health(p),
        "On clips that were held out, of the teacher's tokens. Losses may rise while features get richer, as the "
        f"targets move; a rank under {LEAST_RANK:g} or a spread under {LEAST_SPREAD:g} is a collapse.",
    )
    clips = trainer.held[np.unique(np.linspace(0, len(trainer.held) - 1, PICTURES).astype(int))]
    report.section("What is hidden").text(
        "The encoder sees what is left; grey is predicted, black is neither seen nor predicted."
    )
    report.images(_masked(trainer.model, clips, np.random.default_rng([trainer.seed, 9])))
    report.section("What the features tell").text(
        "Patches of held-out pictures beside the first three principal components of their features, as red, green and "
        "blue: patches of one colour are alike to the encoder."
    )
    pairs = zip(clips[:, 0], component_images(trainer.model, clips), strict=True)
    report.images([(f"held-out clip {i + 1}", list(pair)) for i, pair in enumerate(pairs)], width=160)
    rows = [(k, v) for k, v in last.items()]
    report.section("Last validation").table(rows, ["figure", "value"])
    report.section("Options").table([(k, str(v)) for k, v in summary["options"].items()], ["option", "value"])
    report.write(path)


def _losses(model: MaskedPredictor, progress: Progress):
    fig, axes = plots.figure()
    updates = [c["update"] for c in progress.curve]
    for name in model.groups:
        axes.plot(updates, [c[name] for c in progress.curve], lw=1, label=f"{name.replace('_', ' ')}, training")
    held = progress.validation
    axes.plot([v["update"] for v in held], [v["loss"] for v in held], marker="o", ms=3, label="held out")
    axes.set(title="Prediction loss", xlabel="update", yscale="log")
    axes.legend()
    return fig


def _health(progress: Progress):
    fig, (left, right) = plots.figure(2)
    updates = [v["update"] for v in progress.validation]
    for key, label in (("effective_rank", "of tokens"), ("pooled_rank", "of their means over a picture")):
        left.plot(updates, [v[key] for v in progress.validation], label=label)
    left.set(title="Effective rank", xlabel="update", ylim=(0, None))
    for key in ("spread", "dead_dimensions"):
        right.plot(updates, [v[key] for v in progress.validation], label=key.replace("_", " "))
    right.set(title="Spread of tokens, share of dead dimensions", xlabel="update", ylim=(0, 1))
    left.legend()
    right.legend()
    return fig


def _masked(model: MaskedPredictor, clips: np.ndarray, rng: np.random.Generator) -> list[tuple[str, list[np.ndarray]]]:
    """Each kind of mask over the first clips, a picture for each token in time."""
    clips = clips[:2]
    return [
        (f"{kind.replace('_', ' ')}, held-out clip {i + 1}", mask_images(clip, masks, i, model.sizes.grid))
        for kind, masks in zip(model.groups, model.draw_masks(len(clips), rng), strict=True)
        for i, clip in enumerate(clips)
    ]


def mask_images(clip: np.ndarray, masks: Masks, row: int, grid: int) -> list[np.ndarray]:
    """Pictures (S, S, 3) of a clip (T, S, S, 3) uint8, one for each token in time, as the masks of a row leave them."""
    steps = max(1, len(clip) // TUBELET)
    state = np.zeros(steps * grid * grid, int)  # 0: left out, 1: to be predicted, 2: seen
    state[masks.targets[row].ravel()] = 1
    state[masks.context[row]] = 2
    patch = clip.shape[1] // grid
    pictures = []
    for picture, step in zip(clip[:: max(1, len(clip) // steps)], state.reshape(steps, grid, grid), strict=True):
        shown = np.kron(step, np.ones((patch, patch), int))[..., None]
        pictures.append(np.where(shown == 2, picture, np.where(shown == 1, GREY, 0)).astype(np.uint8))
    return pictures


@torch.no_grad()
def component_images(model: MaskedPredictor, clips: np.ndarray) -> list[np.ndarray]:
    """Pictures (S, S, 3) uint8 whose colours are the first three principal components of the patches' features.

    clips: (B, T, S, S, 3) uint8; of each the first tokens in time. Components are those of all clips together.
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
