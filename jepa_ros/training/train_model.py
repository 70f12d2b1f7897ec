"""`jepa_ros train model`: a world model and its heads from a recorded bag, to a checkpoint with its card.

bag → episodes → world model (chosen on validation) → heads on its frozen latents → calibration → test → checkpoint
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from jepa_ros.allocator import keep_freed_memory
from jepa_ros.bags.cameras import frame_topics
from jepa_ros.datasets.episodes import Episode, EpisodeSet, normalisation
from jepa_ros.datasets.splits import SPLITS, data_camera, expect_data, read_splits
from jepa_ros.distributed import ranks
from jepa_ros.distributed.ranks import count_ranks
from jepa_ros.errors import InputError
from jepa_ros.evaluation.model_health import encode_all, latent_health, prediction_health, probe_r2
from jepa_ros.reporting.progress import ProgressDisplay
from jepa_ros.reporting.summary import write_summary
from jepa_ros.robot.config import RobotConfig, load_robot, require_planar_space
from jepa_ros.training.calibration import calibrate_distance, calibrate_surprise
from jepa_ros.training.card import write_card, write_report
from jepa_ros.training.heads import Heads, add_head_sizes, fit_heads
from jepa_ros.training.heads_report import describe_sizes, evaluate_heads
from jepa_ros.training.logs import TensorBoard
from jepa_ros.training.loop import Trainer
from jepa_ros.training.recipe import Recipe, Schedule, read_recipe
from jepa_ros.training.reference import reference_frame, write_reference
from jepa_ros.world_model.anti_collapse import make_anti_collapse
from jepa_ros.world_model.checkpoint import build_model, identify, own_state, save_checkpoint
from jepa_ros.world_model.config import (
    ActionConfig,
    DistanceConfig,
    FrozenEncoderConfig,
    ModelConfig,
    ProprioceptionConfig,
    SurpriseConfig,
)
from jepa_ros.world_model.device import CPU, choose_device
from jepa_ros.world_model.protocol import WorldModel

PERIOD = 0.1  # s of a control tick
BLOCK = 4  # ticks of a model step
TEST_STEPS = 4


@dataclass(frozen=True)
class Work:
    """Everything that a training needs once its data are read."""

    config: ModelConfig
    recipe: Recipe
    sets: dict[str, EpisodeSet]
    model: WorldModel
    trainer: Trainer


def train_model(
    *,
    data: Path,
    out: Path,
    recipe: str = "reach",
    seed: int = 0,
    name: str = "openarm_reach",
    robot: str = "openarm",
    updates: int | None = None,
    policy_updates: int | None = None,
    encoder: str | None = None,
    threads: int = 1,
    device: str = "auto",
    save_every: float = 60.0,
) -> int:
    """Train, showing progress; a second call with the same options goes on where the first was interrupted.

    updates, policy_updates, encoder: in place of the recipe's. device: see choose_device; the world model trains on it,
    its heads on the CPU. Under torchrun all processes train together. Writes `out`/checkpoint, summary.json and
    report.html. Returns 1 where training stopped because the latents had collapsed.
    Raises InputError.
    """
    torch.set_num_threads(threads)
    keep_freed_memory()
    started, out, where = time.time(), Path(out), choose_device(device)
    expect_data(Path(data))  # what cannot be read is said before anything is made
    chosen = changed(read_recipe(recipe), updates, policy_updates, encoder)
    arm = load_robot(robot)
    require_planar_space(arm)
    options = {"data": str(data), "seed": seed, "name": name, "robot": robot, "recipe": chosen.model_dump()}
    first, processes = ranks.join_group(where) == 0, count_ranks()
    if first:
        check_same_options(out, options)
    try:
        with ProgressDisplay(quiet=not first) as bar:
            sets, config = load(Path(data), arm, name, chosen, bar)
            work = prepare(config, chosen, sets, seed, out / "checkpoint", where)
            fit(work, out, bar, save_every)
            if not first:
                return 0
            latents = {split: encode_all(work.model, part.frames) for split, part in sets.items()}
            heads = fit_heads_with_progress(work.config, latents, sets, chosen.schedule, seed, bar)
    finally:
        ranks.leave_group()
    notes = {"recipe": recipe, "torch_threads": threads, "device": where.type, "processes": processes}
    config, summary = _finish(work, latents, heads, out, options, notes)
    summary["wall_s"] = time.time() - started
    write_summary(out / "summary.json", summary)
    write_report(out / "report.html", config, summary, work.trainer.progress, heads, latents["val"], sets["val"])
    if stopped := work.trainer.progress.stopped:
        print(f"training stopped early: {stopped}")
        return 1
    return 0


def changed(recipe: Recipe, updates: int | None, policy_updates: int | None, encoder: str | None) -> Recipe:
    """The recipe with what the command line says otherwise. Raises InputError."""
    schedule = recipe.schedule
    if updates is not None:
        schedule = schedule.model_copy(update={"updates": updates, "warm_up": min(schedule.warm_up, updates)})
    if policy_updates is not None:
        schedule = schedule.model_copy(update={"policy_updates": policy_updates})
    recipe = recipe.model_copy(update={"schedule": schedule})
    if encoder is None:
        return recipe
    if recipe.encoder.type != "transformers":
        raise InputError(f"encoder: expected a recipe with a frozen encoder, found one of type {recipe.encoder.type}")
    return recipe.model_copy(update={"encoder": recipe.encoder.model_copy(update={"source": encoder})})


def prepare(
    config: ModelConfig,
    recipe: Recipe,
    sets: dict[str, EpisodeSet],
    seed: int,
    directory: Path,
    device: torch.device = CPU,
) -> Work:
    """A model with fresh weights of this seed and its trainer, on a device."""
    torch.manual_seed(seed)
    model, _ = build_model(config, directory)
    settings = {"directions": recipe.loss.directions} if recipe.anti_collapse == "sigreg" else {}
    regulariser = make_anti_collapse(recipe.anti_collapse, model, config, updates=recipe.schedule.updates, **settings)
    trainer = Trainer(config, model, regulariser, sets, recipe.schedule, recipe.loss, seed, device)
    return Work(config, recipe, sets, trainer.inference_model, trainer)


def fit(work: Work, out: Path, bar: ProgressDisplay, save_every: float = 60.0) -> None:
    """Train the world model to its end, from where `out`/trainer.state left off; saved there each `save_every` s."""
    trainer, state = work.trainer, out / "trainer.state"
    if state.exists():
        trainer.load(state)
    task = bar.add("world model", work.recipe.schedule.updates, trainer.progress.update)
    with TensorBoard(out / "tensorboard" if ranks.rank() == 0 else None) as logs:

        def show(values: dict) -> None:
            p = trainer.progress
            note = f"{p.frames_per_second:.0f} frames/s, {100 * p.loader_share:.0f} % of it loading"
            if p.validation:
                last = p.validation[-1]
                note += f"  error {last['error_ratio@3']:.3f} of persistence, rank {last['effective_rank']:.1f}"
            bar.update(task, values["update"], note)
            logs.add(values)

        trainer.run(state, show, save_every)


def fit_heads_with_progress(
    config: ModelConfig,
    latents: dict[str, torch.Tensor],
    sets: dict[str, EpisodeSet],
    schedule: Schedule,
    seed: int,
    bar: ProgressDisplay,
) -> Heads:
    """fit_heads, showing progress."""
    task = bar.add("policy", schedule.policy_updates) if schedule.policy_updates and config.policy else None

    def show(values: dict) -> None:
        losses = ", ".join(f"{name} {value:.3f}" for name, value in values.items() if name != "update")
        bar.update(task, values["update"], losses)

    return fit_heads(config, latents, sets, schedule, seed, show)


def _finish(work: Work, latents: dict, heads: Heads, out: Path, options: dict, notes: dict) -> tuple[ModelConfig, dict]:
    """Calibrate, write the checkpoint with its card, and look at the test episodes once."""
    sets, p, seed = work.sets, work.trainer.progress, options["seed"]
    config = heads.describe(work.config).model_copy(
        update={
            "distance": calibrate_distance(latents["val"], sets["val"], seed),
            "surprise": calibrate_surprise(work.model, latents["val"], sets["val"], BLOCK),
        }
    )
    checkpoint = out / "checkpoint"
    save_checkpoint(checkpoint, config, work.model, heads.policy, heads.reachability, heads.probes)
    arm = load_robot(options["robot"])
    write_reference(checkpoint, reference_frame(sets["train"], [arm.home[joint] for joint in arm.joints]))
    summary = {
        "options": options,
        "episodes": {split: len(part.episodes) for split, part in sets.items()},
        "frames": {split: len(part) for split, part in sets.items()},
        "parameters": _sizes(work.model) | describe_sizes(heads),
        "chosen_update": min(p.validation, key=lambda v: v["error_ratio@3"])["update"],
        "stopped": p.stopped,
        "validation": p.validation[-1],
        "test": judged(work, latents, seed),
        "policy": heads.curve[-1] if heads.curve else None,
        "heads": evaluate_heads(heads, latents["test"], sets["test"], config.block, seed),
        "frames_per_s": p.frames_per_second,
        "loader_share": p.loader_share,
        "training_s": p.seconds,
        "model_id": identify(checkpoint),
        **notes,
    }
    write_card(checkpoint / "README.md", config, summary, Path(options["data"]))
    return config, summary


def judged(work: Work, latents: dict[str, torch.Tensor], seed: int) -> dict[str, float]:
    """The figures of the test episodes; latents: (N, *L) of each split."""
    sets = work.sets
    health = prediction_health(work.model, sets["test"], latents["test"], TEST_STEPS, BLOCK, seed)
    health |= latent_health(latents["test"])
    health["probe_r2"] = probe_r2(latents["train"], sets["train"].tool, latents["test"], sets["test"].tool)
    return health


def _sizes(model: WorldModel) -> dict[str, int]:
    """Parameters that were trained, by the model's parts."""
    parts: dict[str, int] = {}
    for key, value in own_state(model).items():
        part = key.split(".")[0]
        parts[part] = parts.get(part, 0) + value.numel()
    return parts


def check_same_options(out: Path, options: dict) -> None:
    """Note the options of a run in `out`, or raise InputError where it was begun with others."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "options.json"
    wanted = json.loads(json.dumps(options))
    found = json.loads(path.read_text()) if path.exists() else wanted
    if "recipe" in found:
        found["recipe"] = {"cameras": []} | found["recipe"]  # runs begun when recipes had no such field go on
    if found != wanted:
        differ = sorted(k for k in wanted if wanted[k] != found.get(k))
        raise InputError(
            f"{out}: expected to go on with the options it was begun with, found other {', '.join(differ)}"
        )
    path.write_text(json.dumps(wanted))


def load(
    data: Path, robot: RobotConfig, name: str, recipe: Recipe, bar: ProgressDisplay
) -> tuple[dict[str, EpisodeSet], ModelConfig]:
    """Episodes of a bag by split, and the configuration of what the recipe makes of them. Raises InputError."""
    episodes = _read(data, robot, recipe, bar)
    if not recipe.proprioception:
        episodes = [e.blind() for e in episodes]
    mean, std = normalisation(episodes)
    sets = {s: EpisodeSet([e for e in episodes if e.split == s], mean, std) for s in SPLITS}
    proprioception = ProprioceptionConfig()
    if recipe.proprioception:
        proprioception = ProprioceptionConfig(
            joints=tuple(robot.joints), gripper=tuple(robot.gripper), mean=tuple(mean.tolist()), std=tuple(std.tolist())
        )
    encoder, shape = _encoder(recipe)
    config = ModelConfig(
        family=recipe.family,
        name=name,
        encoder=encoder,
        predictor=recipe.predictor,
        projector_hidden=recipe.projector_hidden,
        latent_shape=shape,
        policy=recipe.policy,
        preprocessing=recipe.preprocessing,
        cameras=frame_topics(recipe.cameras),
        history=recipe.history,
        control_rate=1.0 / PERIOD,
        block=BLOCK,
        action=ActionConfig(name="planar_velocity", dimension=2, max_speed=require_planar_space(robot).max_speed),
        proprioception=proprioception,
        # Calibrated once the model is trained.
        distance=DistanceConfig(tolerance=1.0, far=1.0),
        surprise=SurpriseConfig(levels=(0.5,), errors=(1.0,), threshold=1.0),
        camera=data_camera(data, *recipe.cameras[:1]),
        robots=(robot.name,),
    )
    return sets, add_head_sizes(config)


def _encoder(recipe: Recipe):
    """The encoder's configuration and the shape of its latents."""
    if recipe.encoder.type != "transformers":
        return recipe.encoder, (recipe.latent_dim,)
    from jepa_ros.world_model.frozen_encoder import load_frozen_encoder, resolve_encoder, weights_digest

    directory = resolve_encoder(recipe.encoder.source, allow_download=True)
    encoder = load_frozen_encoder(directory, recipe.preprocessing.size)
    config = FrozenEncoderConfig(directory=str(directory.resolve()), sha256=weights_digest(directory))
    return config, (max(1, len(recipe.cameras)) * encoder.tokens, encoder.width)


def _read(data: Path, robot: RobotConfig, recipe: Recipe, bar: ProgressDisplay) -> list[Episode]:
    needed = max(TEST_STEPS, recipe.schedule.steps) * BLOCK
    fields = (tuple(robot.joints), tuple(robot.gripper))
    return read_splits(data, robot, fields, PERIOD, recipe.preprocessing.size, needed, bar, recipe.cameras)
