"""`jepa_ros train heads`: new heads for a model that stays as it is, from a recorded bag.

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
from jepa_ros.datasets.splits import SPLITS, expect_data, read_splits
from jepa_ros.errors import InputError
from jepa_ros.evaluation.model_health import encode_all
from jepa_ros.reporting.progress import ProgressDisplay
from jepa_ros.reporting.report import Report
from jepa_ros.reporting.summary import write_summary
from jepa_ros.robot.config import load_robot, require_planar_space
from jepa_ros.training.card import recorded_seed
from jepa_ros.training.heads import Heads, add_head_sizes, check_finite_latents
from jepa_ros.training.heads_report import describe_sizes, evaluate_heads, head_rows, write_heads
from jepa_ros.training.recipe import Schedule
from jepa_ros.training.reference import copy_references
from jepa_ros.training.train_model import fit_heads_with_progress
from jepa_ros.world_model.checkpoint import Checkpoint, check_robot, identify, load_checkpoint, save_checkpoint
from jepa_ros.world_model.config import ModelConfig, PolicyConfig

LEAST_BLOCKS = 2
"""Model steps that an episode must be long: of shorter ones no way to a goal can be learnt."""


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
    """Train the heads, showing progress; writes `out`/checkpoint, summary.json and report.html.

    objects: NAME=TOPIC of each further probe. camera: image topics of the bag in the order of the model's views; none:
    the one that there is. robot: default: the one that the model was trained for. updates: default: a recipe's.
    probes_only: policy and learned distance stay, too, and probes of what the bag does not tell. The world model's
    weights stay the same, bit for bit. Raises InputError.
    """
    torch.set_num_threads(threads)
    started, out, data = time.time(), Path(out), Path(data)
    topics = parse_objects(objects)
    expect_data(data)  # what cannot be read is said before anything is made
    before = load_checkpoint(model)
    name = robot or (before.config.robots[0] if before.config.robots else "openarm")
    arm = load_robot(name)
    check_robot(before.config, arm)
    require_planar_space(arm)
    if before.directory.resolve() == (out / "checkpoint").resolve():
        raise InputError(f"out {out}: expected another directory than the model's own, found {before.directory}")
    schedule = _schedule(updates, probes_only)
    config = _from_anywhere(before) if probes_only else _with_heads(before)
    with ProgressDisplay() as bar:
        proprioception = config.proprioception
        fields = (tuple(arm.joints), proprioception.gripper if proprioception.dimension else tuple(arm.gripper))
        size, needed = config.preprocessing.size, LEAST_BLOCKS * config.block
        episodes = read_splits(data, arm, fields, config.tick, size, needed, bar, tuple(camera), topics)
        check_camera_count(config, episodes[0].frames)
        check_memory(config, sum(len(e.frames) for e in episodes))
        if not proprioception.dimension:
            episodes = [e.blind() for e in episodes]
        mean, std = np.array(proprioception.mean), np.array(proprioception.std)
        sets = {s: EpisodeSet([e for e in episodes if e.split == s], mean, std) for s in SPLITS}
        latents = {split: encode_all(before.model, part.frames) for split, part in sets.items()}
        check_finite_latents(latents)
        heads = fit_heads_with_progress(config, latents, sets, schedule, seed, bar)
    if probes_only:
        heads = Heads(before.policy, before.reachability, before.probes | heads.probes)
    figures = evaluate_heads(heads, latents["test"], sets["test"], config.block, seed)
    config = heads.describe(config)
    save_checkpoint(out / "checkpoint", config, before.model, heads.policy, heads.reachability, heads.probes)
    copy_references(before.directory, out / "checkpoint")
    summary = {
        "options": {"model": model, "data": str(data), "objects": topics, "robot": name, "seed": seed}
        | ({"probes_only": True} if probes_only else {}),
        "updates": schedule.policy_updates,
        "episodes": {split: len(part.episodes) for split, part in sets.items()},
        "frames": {split: len(part) for split, part in sets.items()},
        "parameters": describe_sizes(heads),
        "policy": heads.curve[-1] if heads.curve else None,
        "heads": figures,
        "model_id": identify(out / "checkpoint"),
        "world_model": before.model_id,
        "torch_threads": threads,
        "wall_s": time.time() - started,
    }
    _card(out / "checkpoint" / "README.md", before, summary, data)
    write_summary(out / "summary.json", summary)
    _report(out / "report.html", config, summary, heads, latents["test"], sets["test"])
    return 0


def check_camera_count(config: ModelConfig, frames: np.ndarray) -> None:
    """Raise InputError where an episode's frames (T, *F) are of another number of cameras than the model sees."""
    found = 1 if frames.ndim == 4 else frames.shape[1]
    if found != len(config.cameras):
        raise InputError(
            f"model {config.name}: expected {len(config.cameras)} cameras ({', '.join(config.cameras)}), "
            f"found {found}: give --camera for each"
        )


def check_memory(config: ModelConfig, frames: int) -> None:
    """Raise InputError where the latents of so many frames would not fit into what memory is free."""
    needed = 4 * frames * math.prod(config.latent_shape)
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > free:
        raise InputError(
            f"model {config.name}: expected latents of {frames} frames that fit into {free / 1e9:.1f} GB of free "
            f"memory, found {needed / 1e9:.1f} GB ({' x '.join(map(str, config.latent_shape))} numbers each): "
            "give a bag with fewer episodes"
        )


def _schedule(updates: int | None, probes_only: bool) -> Schedule:
    """Of the heads; probes are solved for, not trained."""
    if probes_only and updates is not None:
        raise InputError(f"updates: expected none with probes only, found {updates}")
    if probes_only:
        updates = 0
    return Schedule() if updates is None else Schedule(policy_updates=updates, warm_up=min(200, updates))


def _with_heads(before: Checkpoint) -> ModelConfig:
    """The model's configuration with sizes of all heads."""
    config = _from_anywhere(before)
    return add_head_sizes(config.model_copy(update={"policy": config.policy or PolicyConfig()}))


def _from_anywhere(before: Checkpoint) -> ModelConfig:
    """The model's configuration; its frozen encoder stays where it is."""
    config = before.config
    if config.encoder.type != "transformers":
        return config
    there = str((before.directory / config.encoder.directory).resolve())
    return config.model_copy(update={"encoder": config.encoder.model_copy(update={"directory": there})})


def _card(path: Path, before: Checkpoint, summary: dict, data: Path) -> None:
    """The model's card, with what was made here at its end."""
    old = before.directory / "README.md"
    options = summary["options"]
    objects = "".join(f" --object {name}={topic}" for name, topic in options["objects"].items())
    rows, only = head_rows(summary["heads"]), options.get("probes_only", False)
    what = "Probes were fitted" if only else "Policy, learned distance and probes were trained"
    trained = "" if only else f", in {summary['updates']} updates"
    how = f"{objects}{' --probes-only' * only} --seed {options['seed']}"
    lines = [
        old.read_text().rstrip() if old.is_file() else f"# {before.config.name}",
        "",
        "## Heads",
        "",
        f"{what} anew on the frozen model {before.model_id} by",
        "",
        f"    jepa_ros train heads --model {options['model']} --data {data}{how}",
        "",
        f"from {summary['frames']['train']} training frames of {summary['episodes']['train']} episodes (bag of seed",
        f"{recorded_seed(data)}){trained}. On the test episodes:",
        "",
        "| figure | value |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in rows.items()),
        "",
    ]
    path.write_text("\n".join(lines))


def _report(
    path: Path, config: ModelConfig, summary: dict, heads: Heads, latents: torch.Tensor, data: EpisodeSet
) -> None:
    seed = summary["options"]["seed"]
    report = Report(f"Heads of {config.name}", f"seed {seed}, model {summary['model_id']}")
    report.tiles(head_rows(summary["heads"]))
    report.text(f"Trained on the frozen world model {summary['world_model']}; plots and figures are of test episodes.")
    write_heads(report, config, heads, summary["heads"], latents, data, seed)
    report.write(path)
