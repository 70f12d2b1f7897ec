"""`jepa_ros pretrain`: an encoder from the pictures of bags alone, without actions, for the families that freeze one.

bags → stretches of frames → clips, some held out → V-JEPA or I-JEPA → encoder in transformers' format, with its report
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from jepa_ros.allocator import keep_freed_memory
from jepa_ros.bags.frame_runs import FrameRun, read_frame_runs
from jepa_ros.errors import InputError
from jepa_ros.reporting.progress import ProgressDisplay
from jepa_ros.reporting.summary import write_summary
from jepa_ros.text_files import write_atomically
from jepa_ros.training.pretraining.clips import Clips, divide
from jepa_ros.training.pretraining.loop import Pretrainer, Schedule
from jepa_ros.training.pretraining.models import TUBELET, Sizes, build, save_encoder
from jepa_ros.training.pretraining.report import write_report
from jepa_ros.world_model.device import CPU, choose_device
from jepa_ros.world_model.frozen_encoder import import_transformers, weights_digest

LEAST_GRID = 4
"""Patches a side; on fewer there is no room for blocks."""
VALIDATIONS = 20
WARM_UP = 0.1


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
    """Pre-train, showing progress; a second call with the same options goes on where the first was interrupted.

    Writes `out`/encoder (config.json, model.safetensors, preprocessor_config.json), summary.json and report.html. Where
    the features collapse it ends early, says why there and on the progress line, writes no encoder, and returns 1.

    Raises InputError: options, bags or topics that do not fit, too few frames, or a loss that is not finite.
    """
    started, out, where = time.time(), Path(out), choose_device(device)
    sizes = check(Sizes(method, size, patch, frames if method == "vjepa" else 1, width, depth, heads))
    import_transformers()  # said before the bags are read
    torch.set_num_threads(threads)
    keep_freed_memory()
    schedule = Schedule(
        updates=updates,
        batch=batch,
        learning_rate=learning_rate,
        momentum=momentum,
        warm_up=max(1, round(WARM_UP * updates)),
        every=max(1, updates // VALIDATIONS),
    )
    options = {"bags": [str(b) for b in bags], "topic": list(topic), "stride": stride, "seed": seed}
    options |= asdict(sizes) | {"schedule": asdict(schedule)}
    with ProgressDisplay() as bar:
        stretches, unusable = _read([Path(b) for b in bags], topic, sizes.size, bar)
        parts = divide(stretches, sizes.frames, stride, np.random.default_rng(seed))
        train, held = (Clips(part, sizes.frames, stride) for part in parts)
        _go_on_with_the_same(out, options)
        trainer = Pretrainer(build(sizes, seed), train, held, schedule, seed, where)
        _train(trainer, out / "trainer.state", bar)
        trainer.model.to(CPU)
    p, encoder = trainer.progress, out / "encoder"
    if p.stopped is None:
        save_encoder(trainer.model, encoder)
    counts = {"stretches": len(stretches), "train": train.frames, "held_out": held.frames, "unusable": unusable}
    summary = {
        "options": options,
        "stopped": p.stopped,
        "encoder": None if p.stopped else {"directory": encoder, "sha256": weights_digest(encoder)},
        "frames": counts,
        "clips": {"train": len(train), "held_out": len(held)},
        "parameters": {part: _count(getattr(trainer.model, part)) for part in ("encoder", "predictor")},
        "untrained": p.validation[0],
        "validation": p.validation[-1],
        "frames_per_s": p.frames / max(p.seconds, 1e-9),
        "loader_share": p.loading / max(p.seconds, 1e-9),
        "training_s": p.seconds,
        "torch_threads": threads,
        "device": where.type,
        "wall_s": time.time() - started,
    }
    write_summary(out / "summary.json", summary)
    write_report(out / "report.html", trainer, summary)
    return 0 if p.stopped is None else 1


def check(sizes: Sizes) -> Sizes:
    """The sizes, where a model can be made of them. Raises InputError."""
    s = sizes
    if s.method not in ("vjepa", "ijepa"):
        raise InputError(f"method: expected vjepa or ijepa, found {s.method}")
    if s.size % s.patch:
        raise InputError(f"size: expected a multiple of the patch ({s.patch} px), found {s.size}")
    if s.grid < LEAST_GRID:
        raise InputError(f"size: expected at least {LEAST_GRID} patches of {s.patch} px a side, found {s.size} px")
    if s.method == "vjepa" and (s.frames % TUBELET or s.frames < TUBELET):
        raise InputError(f"frames: expected a multiple of {TUBELET}, the frames of a tubelet, found {s.frames}")
    if s.width % (4 * s.heads) or s.width < 8 * s.heads:
        raise InputError(
            f"width: expected a multiple of four times the heads, of at least 8 a head, found {s.width} and {s.heads}"
        )
    return sizes


def _read(bags: list[Path], topics: Sequence[str], size: int, bar: ProgressDisplay) -> tuple[list[FrameRun], int]:
    task = bar.add("frames", None)
    stretches, unusable, count = [], 0, 0
    for bag in bags:
        found, left_out = read_frame_runs(bag, topics, size, lambda n, before=count: bar.update(task, before + n))
        stretches, unusable = stretches + found, unusable + left_out
        count = sum(len(s.frames) for s in stretches)
    bar.update(task, count, total=count)
    return stretches, unusable


def _go_on_with_the_same(out: Path, options: dict) -> None:
    """Note the options in `out`. Raises InputError where it was begun with others, as its losses would mean nothing."""
    path, wanted = out / "options.json", json.loads(json.dumps(options))
    try:
        out.mkdir(parents=True, exist_ok=True)
        found = json.loads(path.read_text()) if path.exists() else wanted
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: expected the options of an earlier run or none, found {error}") from None
    if found != wanted:
        differ = sorted(k for k in wanted if not isinstance(found, dict) or wanted[k] != found.get(k))
        raise InputError(
            f"{out}: expected to go on with the options it was begun with, found other {', '.join(differ)}"
        )
    write_atomically(path, json.dumps(wanted))


def _train(trainer: Pretrainer, state: Path, bar: ProgressDisplay) -> None:
    p = trainer.progress
    if state.exists():
        trainer.load(state)
        p = trainer.progress
    task = bar.add("pre-training", trainer.schedule.updates, p.update)

    def show(values: dict) -> None:
        last = p.validation[-1]
        note = f"{p.frames / max(p.seconds, 1e-9):.0f} frames/s  loss {values['loss']:.3f}"
        bar.update(task, values["update"], f"{note}  held out {last['loss']:.3f}, rank {last['effective_rank']:.1f}")

    try:
        trainer.run(state, show)
    except FloatingPointError as error:
        raise InputError(f"pre-training: {error}; a lower learning rate may help") from None
    if p.stopped:
        bar.update(task, p.update, p.stopped, total=p.update)


def _count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
