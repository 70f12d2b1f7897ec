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
from jepa_ros.bags.frame_runs import FrameRun, read_frame_runs
from jepa_ros.errors import InputError
from jepa_ros.reporting.output import prepare_out
from jepa_ros.reporting.progress import ProgressDisplay
from jepa_ros.reporting.result import print_result
from jepa_ros.reporting.summary import write_summary
from jepa_ros.training.pretraining.clips import Clips, split_clips
from jepa_ros.training.pretraining.loop import Pretrainer, PretrainingSchedule
from jepa_ros.training.pretraining.models import TUBELET, EncoderSizes, build_masked_predictor, save_encoder
from jepa_ros.training.pretraining.report import write_report
from jepa_ros.training.trainer import STATE_FILE, check_same_options, write_options
from jepa_ros.world_model.device import CPU, choose_device
from jepa_ros.world_model.frozen_encoder import import_transformers, weights_digest

MIN_GRID = 4
"""Patches a side; fewer have no room for blocks."""
VALIDATIONS = 20
WARM_UP_SHARE = 0.1


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
        stretches, unusable = _read_runs([Path(b) for b in bags], topic, sizes.size, bar)
        parts = split_clips(stretches, sizes.frames, stride, np.random.default_rng(seed))
        train, held = (Clips(part, sizes.frames, stride) for part in parts)
        trainer = Pretrainer(build_masked_predictor(sizes, seed), train, held, schedule, seed, device)
        write_options(out, options)
        _fit(trainer, out / STATE_FILE, bar)
        trainer.model.to(CPU)
    p, encoder = trainer.progress, out / "encoder"
    if not p.stopped:
        save_encoder(trainer.model, encoder)
    counts = {"stretches": len(stretches), "train": train.frames, "held_out": held.frames, "unusable": unusable}
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
    stretches, unusable, count = [], 0, 0
    for bag in bags:
        found, left_out = read_frame_runs(bag, topics, size, lambda n, before=count: bar.update(task, before + n))
        stretches, unusable = stretches + found, unusable + left_out
        count = sum(len(s.frames) for s in stretches)
    bar.update(task, count, total=count)
    return stretches, unusable


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
