"""`jepa_ros train heads`: new heads for a world model that stays as it is, from a recorded bag or dataset.

bag → episodes → frozen latents → policy, learned distance and probes → test → checkpoint with the same world model
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from jepa_ros.datasets.episodes import EpisodeSet
from jepa_ros.datasets.mapping import parse_objects
from jepa_ros.datasets.recorded_episodes import SPLITS, expect_data, read_splits
from jepa_ros.errors import InputError
from jepa_ros.evaluation.model_health import encode_frames
from jepa_ros.reporting.output import after_summary, prepare_out
from jepa_ros.reporting.progress import ProgressDisplay
from jepa_ros.reporting.report import Report
from jepa_ros.reporting.result import print_result
from jepa_ros.reporting.summary import write_summary
from jepa_ros.robot.config import load_robot, require_velocity_space
from jepa_ros.text_files import write_atomically
from jepa_ros.training.heads import Heads, add_head_sizes, fit_heads
from jepa_ros.training.recipe import Schedule
from jepa_ros.training.report import (
    add_head_sections,
    card_table,
    count_head_parameters,
    evaluate_heads,
    head_rows,
    recorded_seed,
)
from jepa_ros.training.train_model import copy_references
from jepa_ros.training.trainer import HEADS_STATE_FILE, check_same_options, write_options
from jepa_ros.world_model.checkpoint import Checkpoint, check_robot, identify, load_checkpoint, save_checkpoint
from jepa_ros.world_model.config import ModelConfig, PolicyConfig

MIN_BLOCKS = 2  # model steps of an episode at least: from shorter ones no way to a goal can be learnt


def train_heads(
    *,
    model: str,
    data: Path,
    out: Path,
    objects: Sequence[str] = (),
    camera: Sequence[str] = (),
    robot: str | None = None,
    seed: int = 0,
    updates: int | None = None,
    probes_only: bool = False,
    threads: int = 1,
) -> int:
    """Train the heads with a progress display; a second call with the same options resumes an interrupted run.

    objects: NAME=TOPIC of further probes. camera: image topics of the bag in the order of the model's views; empty: its
    only camera. robot: default: that of the model. updates: default: as in recipes. probes_only: fit probes only;
    policy, learned distance and the probes of other objects stay.

    The world model's weights stay the same, bit for bit. Writes `out`/checkpoint, summary.json and report.html. Raises
    InputError.
    """
    torch.set_num_threads(threads)
    started, out, data = time.time(), Path(out), Path(data)
    topics, schedule = parse_objects(objects), _schedule(updates, probes_only)
    expect_data(data)
    before = load_checkpoint(model)
    name = robot or (before.config.robots[0] if before.config.robots else "openarm")
    arm = load_robot(name)
    check_robot(before.config, arm)
    require_velocity_space(arm)
    if before.directory.resolve() == (out / "checkpoint").resolve():
        raise InputError(f"--out {out}: would overwrite the model itself; give another directory")
    options = {"model": model, "data": str(data), "objects": topics, "robot": name, "seed": seed}
    options |= {"probes_only": True} if probes_only else {}
    run_options = options | {"updates": schedule.policy_updates, "camera": list(camera)}
    check_same_options(prepare_out(out), run_options, HEADS_STATE_FILE)
    config = before.config
    if config.encoder.type == "transformers":  # a frozen encoder stays where it is
        directory = str((before.directory / config.encoder.directory).resolve())
        config = config.model_copy(update={"encoder": config.encoder.model_copy(update={"directory": directory})})
    if not probes_only:
        config = add_head_sizes(config.model_copy(update={"policy": config.policy or PolicyConfig()}))
    with ProgressDisplay() as bar:
        proprioception = config.proprioception
        fields = (tuple(arm.joints), proprioception.gripper if proprioception.dimension else tuple(arm.gripper))
        size, needed = config.preprocessing.size, MIN_BLOCKS * config.block
        episodes = read_splits(data, arm, fields, config.tick, size, needed, bar, tuple(camera), topics)
        frames = episodes[0].frames
        if (found := 1 if frames.ndim == 4 else frames.shape[1]) != (views := len(config.cameras)):
            there = f"{views} views ({', '.join(config.cameras)}), but {found} image topics were read"
            raise InputError(f"model {config.name}: has {there}; give --camera for each view")
        check_memory(config, sum(len(e.frames) for e in episodes))
        if not proprioception.dimension:
            episodes = [e.blind() for e in episodes]
        mean, std = np.array(proprioception.mean), np.array(proprioception.std)
        sets = {s: EpisodeSet([e for e in episodes if e.split == s], mean, std) for s in SPLITS}
        latents = {split: encode_frames(before.model, part.frames) for split, part in sets.items()}
        for split, z in latents.items():
            if not bool(torch.isfinite(z).all()):
                raise InputError(f"model: non-finite latents (NaN or Inf) of the {split} episodes")
        write_options(out, run_options)
        heads = fit_heads(config, latents, sets, schedule, seed, bar, out / HEADS_STATE_FILE)
    if probes_only:
        heads = Heads(before.policy, before.reachability, before.probes | heads.probes)
    figures = evaluate_heads(heads, latents["test"], sets["test"], config.block, seed)
    config, checkpoint = heads.describe(config), out / "checkpoint"
    save_checkpoint(checkpoint, config, before.model, heads.policy, heads.reachability, heads.probes)
    copy_references(before.directory, checkpoint)
    summary = {
        "options": options,
        "updates": schedule.policy_updates,
        "episodes": {split: len(part.episodes) for split, part in sets.items()},
        "frames": {split: len(part) for split, part in sets.items()},
        "parameters": count_head_parameters(heads),
        "policy": heads.curve[-1] if heads.curve else None,
        "heads": figures,
        "model_id": identify(checkpoint),
        "world_model": before.model_id,
        "torch_threads": threads,
        "wall_s": time.time() - started,
    }
    _write_card(checkpoint / "README.md", before, summary, data)
    write_summary(out / "summary.json", summary)
    with after_summary(out / "summary.json"):
        report = Report(f"Heads of {config.name}", f"seed {seed}, model {summary['model_id']}")
        report.tiles(head_rows(figures))
        report.text(f"Trained on the frozen world model {before.model_id}. All figures are from test episodes.")
        add_head_sections(report, config, heads, figures, latents["test"], sets["test"], seed)
        report.write(out / "report.html")
    title = f"train heads: {config.name}, model id {summary['model_id']}, on test episodes"
    print_result(title, head_rows(figures).items(), [checkpoint, out / "summary.json", out / "report.html"])
    return 0


def check_memory(config: ModelConfig, frames: int) -> None:
    """Raise InputError if the latents of so many frames do not fit into free memory."""
    needed = 4 * frames * math.prod(config.latent_shape)
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > free:
        size = f"{' x '.join(map(str, config.latent_shape))} numbers each"
        wanted = f"the latents of {frames} frames need {needed / 1e9:.1f} GB of memory ({size})"
        raise InputError(f"model {config.name}: {wanted}, {free / 1e9:.1f} GB are free; give a bag with fewer episodes")


def _schedule(updates: int | None, probes_only: bool) -> Schedule:
    """Return the schedule of the heads; probes need no updates, as they are least-squares fits. Raises InputError."""
    if probes_only and updates is not None:
        raise InputError("--updates: has no effect with --probes-only; leave one of them out")
    if probes_only:
        updates = 0
    return Schedule() if updates is None else Schedule(policy_updates=updates, warm_up=min(200, updates))


def _write_card(path: Path, before: Checkpoint, summary: dict, data: Path) -> None:
    """Write the model's former card with a section on the new heads at its end."""
    old, options = before.directory / "README.md", summary["options"]
    objects = "".join(f" --object {name}={topic}" for name, topic in options["objects"].items())
    only = options.get("probes_only", False)
    what = "Probes were fitted" if only else "Policy, learned distance and probes were trained"
    updates = "" if only else f", in {summary['updates']} updates"
    flags = f"{objects}{' --probes-only' * only} --seed {options['seed']}"
    lines = [
        old.read_text().rstrip() if old.is_file() else f"# {before.config.name}",
        "",
        "## Heads",
        "",
        f"{what} on the frozen model {before.model_id} with",
        "",
        f"    jepa_ros train heads --model {options['model']} --data {data}{flags}",
        "",
        f"on {summary['frames']['train']} training frames of {summary['episodes']['train']} episodes (bag of seed",
        f"{recorded_seed(data)}){updates}. On the test episodes:",
        "",
        *card_table(head_rows(summary["heads"])),
    ]
    write_atomically(path, "\n".join(lines))
