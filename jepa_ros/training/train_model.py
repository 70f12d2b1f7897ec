"""`jepa_ros train model`: train a world model and its heads on a recorded bag or dataset.

bag → episodes → world model (chosen on validation) → heads on its frozen latents → calibration → test → checkpoint
"""

from __future__ import annotations

import time
from pathlib import Path

import torch

from jepa_ros.allocator import keep_freed_memory
from jepa_ros.bags.cameras import frame_topics
from jepa_ros.datasets.episodes import Episode, EpisodeSet, normalisation
from jepa_ros.datasets.splits import SPLITS, data_camera, expect_data, read_splits
from jepa_ros.distributed import ranks
from jepa_ros.distributed.ranks import count_ranks
from jepa_ros.errors import InputError
from jepa_ros.evaluation.model_health import encode_frames, measure_latents, measure_prediction, measure_probe_r2
from jepa_ros.reporting.output import prepare_out
from jepa_ros.reporting.progress import ProgressDisplay
from jepa_ros.reporting.result import print_result
from jepa_ros.reporting.summary import write_summary
from jepa_ros.robot.config import RobotConfig, load_robot, require_planar_space
from jepa_ros.training.calibration import calibrate_distance, calibrate_surprise
from jepa_ros.training.card import write_card, write_report
from jepa_ros.training.heads import Heads, add_head_sizes, fit_heads
from jepa_ros.training.heads_report import count_head_parameters, evaluate_heads, head_rows
from jepa_ros.training.logs import TensorBoard
from jepa_ros.training.loop import Trainer
from jepa_ros.training.recipe import Recipe, override_recipe, read_recipe
from jepa_ros.training.reference import reference_frame, write_reference
from jepa_ros.training.trainer import HEADS_STATE_FILE, STATE_FILE, check_same_options, write_options
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

PERIOD_S = 0.1
"""Duration of a control tick."""
BLOCK = 4
"""Control ticks of a model step."""
TEST_STEPS = 4
"""Model steps that prediction is measured over."""


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
    """Train with a progress display; a second call with the same options resumes an interrupted run.

    updates, policy_updates, encoder: override the recipe. device: see choose_device; the world model trains on it, its
    heads on the CPU. save_every: s. Under torchrun all processes train together.

    Writes `out`/checkpoint, summary.json and report.html. Returns 1 if training stopped because the latents collapsed.
    Raises InputError.
    """
    torch.set_num_threads(threads)
    keep_freed_memory()
    started, device = time.time(), choose_device(device)
    expect_data(Path(data))
    chosen = override_recipe(read_recipe(recipe), updates, policy_updates, encoder)
    arm = load_robot(robot)
    require_planar_space(arm)
    out = Path(out)
    options = {"data": str(data), "seed": seed, "name": name, "robot": robot, "recipe": chosen.model_dump()}
    is_first, processes = ranks.join_group(device) == 0, count_ranks()
    try:
        if is_first:
            check_same_options(prepare_out(out), options)
        with ProgressDisplay(quiet=not is_first) as bar:
            sets, config = load_training_data(Path(data), arm, name, chosen, bar)
            trainer = make_trainer(config, chosen, sets, seed, out / "checkpoint", device)
            if is_first:
                write_options(out, options)
            _fit_world_model(trainer, out, bar, save_every)
            ranks.leave_group()  # the rest is done by the first process alone
            if not is_first:
                return 0
            latents = {split: encode_frames(trainer.inference_model, part.frames) for split, part in sets.items()}
            heads = fit_heads(config, latents, sets, chosen.schedule, seed, bar, out / HEADS_STATE_FILE)
    finally:
        ranks.leave_group()
    notes = {"recipe": recipe, "torch_threads": threads, "device": device.type, "processes": processes}
    config, summary = _save_checkpoint(trainer, latents, heads, out, options, notes)
    summary["wall_s"] = time.time() - started
    files = [out / "checkpoint", out / "summary.json", out / "report.html"]
    write_summary(files[1], summary)
    write_report(files[2], config, summary, trainer.progress, heads, latents["val"], sets["val"])
    stopped, test = trainer.progress.stopped, summary["test"]
    lines = [("stopped early", stopped)] if stopped else []
    lines += [
        (
            "updates",
            f"{trainer.progress.update} (best on validation: {summary['chosen_update']})",
        ),
        ("test: 3-step error", f"{100 * test['error_ratio@3']:.1f} % of the persistence baseline"),
        ("test: probe of the tool", f"R² {test['probe_r2']:.4f}"),
        ("test: effective rank", f"{test['effective_rank']:.1f} of {config.latent_shape[-1]}"),
        *head_rows(summary["heads"]).items(),
    ]
    print_result(f"train model: {name}, model id {summary['model_id']}", lines, files)
    return 1 if stopped else 0


def make_trainer(
    config: ModelConfig,
    recipe: Recipe,
    sets: dict[str, EpisodeSet],
    seed: int,
    directory: Path,
    device: torch.device = CPU,
    **method_options: float,
) -> Trainer:
    """Return the trainer of a model whose weights are initialised from the seed.

    method_options: further options of the recipe's method against collapse, see make_anti_collapse.
    """
    torch.manual_seed(seed)
    model, _ = build_model(config, directory)
    if recipe.anti_collapse == "sigreg":
        method_options["directions"] = recipe.loss.directions
    updates = recipe.schedule.updates
    method = make_anti_collapse(recipe.anti_collapse, model, config, updates=updates, **method_options)
    return Trainer(config, model, method, sets, recipe.schedule, recipe.loss, seed, device)


def _fit_world_model(trainer: Trainer, out: Path, bar: ProgressDisplay, save_every: float) -> None:
    """Train the world model to its end, resuming from the state in `out`. Raises InputError if it diverges."""
    state = out / STATE_FILE
    trainer.load_if_there(state)
    task = bar.add("world model", trainer.updates, trainer.progress.update)
    with TensorBoard(out / "tensorboard" if ranks.rank() == 0 else None) as logs:

        def show(values: dict) -> None:
            p = trainer.progress
            note = f"{p.frames_per_second:.0f} frames/s, {100 * p.loader_share:.0f} % of the time loading data"
            if p.validation:
                last = p.validation[-1]
                note += f"  error {last['error_ratio@3']:.3f} of persistence, rank {last['effective_rank']:.1f}"
            bar.update(task, values["update"], note)
            logs.add(values)

        try:
            trainer.run(state, show, save_every)
        except FloatingPointError as error:
            raise InputError(f"training diverged at {error}; lower learning_rate in the recipe") from None


def _save_checkpoint(
    trainer: Trainer, latents: dict, heads: Heads, out: Path, options: dict, notes: dict
) -> tuple[ModelConfig, dict]:
    """Calibrate, measure on test episodes, and write the checkpoint with its card; return its config and summary."""
    sets, p, seed, model = trainer.data, trainer.progress, options["seed"], trainer.inference_model
    config = heads.describe(trainer.config).model_copy(
        update={
            "distance": calibrate_distance(latents["val"], sets["val"], seed),
            "surprise": calibrate_surprise(model, latents["val"], sets["val"], BLOCK),
        }
    )
    checkpoint = out / "checkpoint"
    save_checkpoint(checkpoint, config, model, heads.policy, heads.reachability, heads.probes)
    arm = load_robot(options["robot"])
    write_reference(checkpoint, reference_frame(sets["train"], [arm.home[joint] for joint in arm.joints]))
    test = measure_prediction(model, sets["test"], latents["test"], TEST_STEPS, BLOCK, seed)
    test |= measure_latents(latents["test"])
    test["probe_r2"] = measure_probe_r2(latents["train"], sets["train"].tool, latents["test"], sets["test"].tool)
    summary = {
        "options": options,
        "episodes": {split: len(part.episodes) for split, part in sets.items()},
        "frames": {split: len(part) for split, part in sets.items()},
        "parameters": _count_parameters(model) | count_head_parameters(heads),
        "chosen_update": min(p.validation, key=lambda v: v["error_ratio@3"])["update"],
        "stopped": p.stopped,
        "validation": p.validation[-1],
        "test": test,
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


def _count_parameters(model: WorldModel) -> dict[str, int]:
    """Return the number of trained parameters by part of the model."""
    parts: dict[str, int] = {}
    for key, value in own_state(model).items():
        part = key.split(".")[0]
        parts[part] = parts.get(part, 0) + value.numel()
    return parts


def load_training_data(
    data: Path, robot: RobotConfig, name: str, recipe: Recipe, bar: ProgressDisplay
) -> tuple[dict[str, EpisodeSet], ModelConfig]:
    """Return the episodes of a bag or dataset by split, and the config of the model to train. Raises InputError."""
    encoder, shape = _resolve_encoder(recipe)
    episodes = _read_episodes(data, robot, recipe, bar)
    if not recipe.proprioception:
        episodes = [e.blind() for e in episodes]
    mean, std = normalisation(episodes)
    sets = {s: EpisodeSet([e for e in episodes if e.split == s], mean, std) for s in SPLITS}
    proprioception = ProprioceptionConfig()
    if recipe.proprioception:
        proprioception = ProprioceptionConfig(
            joints=tuple(robot.joints), gripper=tuple(robot.gripper), mean=tuple(mean.tolist()), std=tuple(std.tolist())
        )
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
        control_rate=1.0 / PERIOD_S,
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


def _resolve_encoder(recipe: Recipe):
    """Return the encoder's config and the shape of its latents; a frozen encoder is downloaded if it is not there."""
    if recipe.encoder.type != "transformers":
        return recipe.encoder, (recipe.latent_dim,)
    from jepa_ros.world_model.frozen_encoder import load_frozen_encoder, resolve_encoder, weights_digest

    directory = resolve_encoder(recipe.encoder.source, allow_download=True)
    encoder = load_frozen_encoder(directory, recipe.preprocessing.size)
    config = FrozenEncoderConfig(directory=str(directory.resolve()), sha256=weights_digest(directory))
    return config, (max(1, len(recipe.cameras)) * encoder.tokens, encoder.width)


def _read_episodes(data: Path, robot: RobotConfig, recipe: Recipe, bar: ProgressDisplay) -> list[Episode]:
    needed = max(TEST_STEPS, recipe.schedule.steps) * BLOCK
    fields = (tuple(robot.joints), tuple(robot.gripper))
    return read_splits(data, robot, fields, PERIOD_S, recipe.preprocessing.size, needed, bar, recipe.cameras)
