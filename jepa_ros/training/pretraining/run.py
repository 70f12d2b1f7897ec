"""`jepa_ros pretrain`: train an image encoder on the images of bags alone, for the families that use a frozen encoder.

bags → frame runs → clips, some held out → V-JEPA or I-JEPA → encoder in transformers' format, with a report
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from jepa_ros.allocator import keep_freed_memory
from jepa_ros.bags.cameras import FrameRun, read_frame_runs
from jepa_ros.errors import InputError
from jepa_ros.reporting import plots
from jepa_ros.reporting.output import after_summary, prepare_out
from jepa_ros.reporting.progress import ProgressDisplay
from jepa_ros.reporting.report import Report
from jepa_ros.reporting.result import print_result
from jepa_ros.reporting.summary import write_summary
from jepa_ros.training.pretraining.loop import (
    MIN_RANK,
    MIN_SPREAD,
    Clips,
    Pretrainer,
    PretrainingSchedule,
    normalize_clips,
    split_clips,
)
from jepa_ros.training.pretraining.models import (
    TUBELET,
    EncoderSizes,
    MaskedPredictor,
    Masks,
    build_masked_predictor,
    save_encoder,
)
from jepa_ros.training.trainer import STATE_FILE, check_same_options, draw_curves, write_options
from jepa_ros.world_model.device import CPU, choose_device
from jepa_ros.world_model.frozen_encoder import import_transformers, weights_digest

SHOWN_CLIPS = 6
NAMES = {"vjepa": "V-JEPA", "ijepa": "I-JEPA"}
PREDICTED_GREY = 96  # pixel value, up to 255, of patches that are predicted
MIN_GRID = 4  # patches a side; fewer have no room for blocks
VALIDATIONS = 20
WARM_UP_SHARE = 0.1


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
    figure, axes = plots.figure()
    names = {name: f"{name.replace('_', ' ')}, training" for name in trainer.model.groups}
    draw_curves(axes, p.curve, names, "Prediction loss", yscale="log")
    draw_curves(axes, p.validation, {"loss": "held out"}, "Prediction loss", yscale="log")
    report.section("Loss and health").plot(figure)
    figure, (left, right) = plots.figure(2)
    ranks = {"effective_rank": "of tokens", "pooled_rank": "of their means over an image"}
    draw_curves(left, p.validation, ranks, "Effective rank", ylim=(0, None))
    shares = {"spread": "spread", "dead_dimensions": "dead dimensions"}
    draw_curves(right, p.validation, shares, "Spread of tokens, share of dead dimensions", ylim=(0, 1))
    report.plot(
        figure,
        "On held-out clips, of the teacher's tokens. Losses may rise while features become richer, because the targets "
        f"move; a rank below {MIN_RANK:g} or a spread below {MIN_SPREAD:g} is a collapse.",
    )
    clips = trainer.held[np.unique(np.linspace(0, len(trainer.held) - 1, SHOWN_CLIPS).astype(int))]
    report.section("Masks").text(
        "The encoder sees the patches that are shown; grey ones are predicted, black ones neither seen nor predicted."
    )
    masks_by_kind = trainer.model.draw_masks(len(clips[:2]), np.random.default_rng([trainer.seed, 9]))
    report.images(
        (f"{kind.replace('_', ' ')}, held-out clip {i + 1}", mask_images(clip, masks, i, sizes.grid))
        for kind, masks in zip(trainer.model.groups, masks_by_kind, strict=True)
        for i, clip in enumerate(clips[:2])
    )
    report.section("Features").text(
        "Held-out images beside the first three principal components of their patch features, as red, green and blue: "
        "patches of the same colour have similar features."
    )
    pairs = zip(clips[:, 0], component_images(trainer.model, clips), strict=True)
    report.images([(f"held-out clip {i + 1}", list(pair)) for i, pair in enumerate(pairs)], width=160)
    report.section("Last validation").table(list(last.items()), ["metric", "value"])
    report.section("Options").table([(k, str(v)) for k, v in summary["options"].items()], ["option", "value"])
    report.write(path)


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


def pretrain(
    *,
    bags: Sequence[Path],
    out: Path,
    method: str = "vjepa",
    topic: Sequence[str] = ("image",),
    size: int = 64,
    patch: int = 8,
    frames: int = 8,
    stride: int = 1,
    width: int = 192,
    depth: int = 6,
    heads: int = 3,
    updates: int = 4000,
    batch: int = 32,
    learning_rate: float = 2e-4,
    momentum: float = 0.998,
    seed: int = 0,
    threads: int = 1,
    device: str = "auto",
) -> int:
    """Pre-train with a progress display; a second call with the same options resumes an interrupted run.

    Writes `out`/encoder (config.json, model.safetensors, preprocessor_config.json), summary.json and report.html. If
    the features collapse it stops early, reports why, writes no encoder, and returns 1.

    Raises InputError: invalid options, bags or topics, too few frames, or a loss that is not finite.
    """
    started, device = time.time(), choose_device(device)
    sizes = check_sizes(EncoderSizes(method, size, patch, frames if method == "vjepa" else 1, width, depth, heads))
    import_transformers()  # raises InputError if it is not installed
    out = prepare_out(out)
    torch.set_num_threads(threads)
    keep_freed_memory()
    schedule = PretrainingSchedule(
        updates=updates,
        batch=batch,
        learning_rate=learning_rate,
        momentum=momentum,
        warm_up=max(1, round(WARM_UP_SHARE * updates)),
        every=max(1, updates // VALIDATIONS),
    )
    options = {"bags": [str(b) for b in bags], "topic": list(topic), "stride": stride, "seed": seed}
    options |= asdict(sizes) | {"schedule": asdict(schedule)}
    check_same_options(out, options)
    with ProgressDisplay() as bar:
        runs, unusable = _read_runs([Path(b) for b in bags], topic, sizes.size, bar)
        parts = split_clips(runs, sizes.frames, stride, np.random.default_rng(seed))
        train, held = (Clips(part, sizes.frames, stride) for part in parts)
        trainer = Pretrainer(build_masked_predictor(sizes, seed), train, held, schedule, seed, device)
        write_options(out, options)
        _fit(trainer, out / STATE_FILE, bar)
        trainer.model.to(CPU)
    p, encoder = trainer.progress, out / "encoder"
    if not p.stopped:
        save_encoder(trainer.model, encoder)
    counts = {"stretches": len(runs), "train": train.frames, "held_out": held.frames, "unusable": unusable}
    summary = {
        "options": options,
        "stopped": p.stopped or None,
        "encoder": None if p.stopped else {"directory": encoder, "sha256": weights_digest(encoder)},
        "frames": counts,
        "clips": {"train": len(train), "held_out": len(held)},
        "parameters": {
            part: sum(p.numel() for p in getattr(trainer.model, part).parameters()) for part in ("encoder", "predictor")
        },
        "untrained": p.validation[0],
        "validation": p.validation[-1],
        "frames_per_s": p.frames_per_second,
        "loader_share": p.loader_share,
        "training_s": p.seconds,
        "torch_threads": threads,
        "device": device.type,
        "wall_s": time.time() - started,
    }
    files = [*([] if p.stopped else [encoder]), out / "summary.json", out / "report.html"]
    write_summary(out / "summary.json", summary)
    with after_summary(out / "summary.json"):
        write_report(out / "report.html", trainer, summary)
    lines = [("stopped early", p.stopped)] if p.stopped else []
    lines += [
        ("loss on held-out clips", f"{p.validation[-1]['loss']:.3f} (untrained {p.validation[0]['loss']:.3f})"),
        ("effective rank of the features", f"{p.validation[-1]['effective_rank']:.1f} of {width}"),
    ]
    print_result(f"pretrain: {method}, {p.update} updates on {train.frames} frames", lines, files)
    return 1 if p.stopped else 0


def check_sizes(sizes: EncoderSizes) -> EncoderSizes:
    """Return the sizes if a model can have them. Raises InputError."""
    s = sizes
    if s.method not in ("vjepa", "ijepa"):
        raise InputError(f"--method {s.method}: must be vjepa or ijepa")
    if s.size % s.patch:
        raise InputError(f"--size {s.size}: must be a multiple of --patch ({s.patch} px)")
    if s.grid < MIN_GRID:
        raise InputError(f"--size {s.size}: must be at least {MIN_GRID} patches of {s.patch} px a side")
    if s.method == "vjepa" and (s.frames % TUBELET or s.frames < TUBELET):
        raise InputError(f"--frames {s.frames}: must be a multiple of {TUBELET}, the frames of a tubelet")
    if s.width % (4 * s.heads) or s.width < 8 * s.heads:
        raise InputError(
            f"--width {s.width}: must be a multiple of four times --heads ({s.heads}), and at least 8 for each head"
        )
    return sizes


def _read_runs(bags: list[Path], topics: Sequence[str], size: int, bar: ProgressDisplay) -> tuple[list[FrameRun], int]:
    """Return the frame runs of all bags, and the number of images that could not be decoded."""
    task = bar.add("frames", None)
    runs, unusable, count = [], 0, 0
    for bag in bags:
        found, left_out = read_frame_runs(bag, topics, size, lambda n, before=count: bar.update(task, before + n))
        runs, unusable = runs + found, unusable + left_out
        count = sum(len(s.frames) for s in runs)
    bar.update(task, count, total=count)
    return runs, unusable


def _fit(trainer: Pretrainer, state: Path, bar: ProgressDisplay) -> None:
    """Train to the end, resuming from the state file. Raises InputError if the loss diverges."""
    trainer.load_if_there(state)
    p = trainer.progress
    task = bar.add("pre-training", trainer.updates, p.update)

    def show(values: dict) -> None:
        last = p.validation[-1]
        note = f"{p.frames_per_second:.0f} frames/s  loss {values['loss']:.3f}"
        bar.update(task, values["update"], f"{note}  held out {last['loss']:.3f}, rank {last['effective_rank']:.1f}")

    try:
        trainer.run(state, show)
    except FloatingPointError as error:
        raise InputError(f"pre-training diverged at {error}; a lower --learning-rate may help") from None
    if p.stopped:
        bar.update(task, p.update, p.stopped, total=p.update)
