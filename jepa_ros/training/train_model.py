"""`jepa_ros train model`: train a world model and its heads on a recorded bag or dataset.

bag → episodes → world model (chosen on validation) → heads on its frozen latents → calibration → test → checkpoint
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from jepa_ros import distributed
from jepa_ros.allocator import keep_freed_memory
from jepa_ros.bags.cameras import frame_topics
from jepa_ros.datasets.episodes import EpisodeSet, Windows, normalisation
from jepa_ros.datasets.recorded_episodes import SPLITS, expect_data, read_data_camera, read_splits
from jepa_ros.errors import InputError
from jepa_ros.evaluation.model_health import (
    describe_collapse,
    encode_frames,
    measure_latents,
    measure_prediction,
    measure_probe_r2,
)
from jepa_ros.planning.goal import latent_distance_pairs
from jepa_ros.reporting.output import after_summary, prepare_out
from jepa_ros.reporting.progress import ProgressDisplay
from jepa_ros.reporting.result import print_result
from jepa_ros.reporting.summary import write_summary
from jepa_ros.robot.config import RobotConfig, load_robot, require_velocity_space
from jepa_ros.text_files import write_atomically
from jepa_ros.training.heads import Heads, add_head_sizes, fit_heads
from jepa_ros.training.losses import WorldModelLoss
from jepa_ros.training.recipe import LossWeights, Recipe, Schedule, override_recipe, read_recipe
from jepa_ros.training.report import count_head_parameters, evaluate_heads, head_rows, write_card, write_report
from jepa_ros.training.trainer import (
    HEADS_STATE_FILE,
    STATE_FILE,
    ResumableTrainer,
    check_same_options,
    copy_weights,
    descend,
    learning_rate_factor,
    tensorboard_log,
    write_options,
)
from jepa_ros.world_model.anti_collapse import make_anti_collapse
from jepa_ros.world_model.anti_collapse.protocol import AntiCollapse
from jepa_ros.world_model.checkpoint import build_model, identify, own_state, save_checkpoint
from jepa_ros.world_model.config import (
    REFERENCES,
    ActionConfig,
    DistanceConfig,
    FrozenEncoderConfig,
    ModelConfig,
    ProprioceptionConfig,
    SurpriseConfig,
)
from jepa_ros.world_model.device import CPU, choose_device, on_device
from jepa_ros.world_model.protocol import Context, PredictiveModel, WorldModel

SURPRISE_LEVELS = (0.5, 0.9, 0.95, 0.99, 0.999)
SAME_PLACE_M = 0.01  # two frames whose tools are closer than this count as the same place
COLLAPSED_VALIDATIONS = 2  # validations in a row that must look collapsed before training stops
PROBE_FRAMES = 4000
PERIOD_S = 0.1  # duration of a control tick
BLOCK = 4  # control ticks of a model step
TEST_STEPS = 4  # model steps that prediction is measured over


def reference_frame(data: EpisodeSet, home: Sequence[float]) -> np.ndarray:
    """Return the frame (size, size, 3) uint8 rgb whose joints are closest to `home` (J,) rad, or the first frame if the
    episodes have no joints. Of several cameras it is the first, which the model's `camera` describes."""
    states = np.concatenate([e.states for e in data.episodes])
    row = int(np.square(states[:, : len(home)] - home).sum(axis=1).argmin()) if states.shape[1] else 0
    frame = data.frames[row]
    return frame if frame.ndim == 3 else frame[0]


def write_reference(directory: Path, rgb: np.ndarray) -> None:
    """Write the image (H, W, 3) uint8 RGB as reference.png of a checkpoint."""
    path = directory / REFERENCES[0]
    data = cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 9])[1]
    write_atomically(path, data.tobytes())


def copy_references(source: Path, target: Path) -> None:
    """Copy the reference images of one checkpoint to another with the same cameras."""
    for name in REFERENCES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


def calibrate(
    config: ModelConfig, model: WorldModel, latents: torch.Tensor, data: EpisodeSet, seed: int, noise: float = 0.0
) -> ModelConfig:
    """Return the config with calibrated scales, from the latents (N, *L) of validation episodes.

    noise: std of Gaussian noise that is added to the latents for distances: collapsed latents have none.
    """
    disturbed = latents
    if noise:
        disturbed = latents + noise * torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed))
    scales = {
        "distance": calibrate_distance(disturbed, data, seed),
        "surprise": calibrate_surprise(model, latents, data, config.block),
    }
    return config.model_copy(update=scales)


def calibrate_distance(latents: torch.Tensor, data: EpisodeSet, seed: int, pairs: int = 400_000) -> DistanceConfig:
    """Return the tolerance (median distance of frames within SAME_PLACE_M) and `far` (10th percentile of all pairs)."""
    rng = np.random.default_rng(seed)
    first, second = rng.integers(len(latents), size=(2, pairs))
    apart = np.linalg.norm(data.tool[first] - data.tool[second], axis=1)
    distance = latent_distance_pairs(latents[first], latents[second])
    near = distance[(apart < SAME_PLACE_M) & (first != second)]
    return DistanceConfig(tolerance=float(np.median(near)), far=float(np.quantile(distance, 0.1)))


@torch.inference_mode()
def calibrate_surprise(model: WorldModel, latents: torch.Tensor, data: EpisodeSet, block: int) -> SurpriseConfig:
    """Return quantiles of the one-step error over all validation windows, and as threshold twice the 99.9 % one."""
    errors, h = [], model.history
    for episode, length in enumerate(data.lengths):
        ticks = np.arange(0, length - block + 1)
        at = np.full(len(ticks), episode)
        rows = data.rows(at, ticks, 1, block, h)
        actions = data.blocks(at, ticks, 1, block, h)
        context = Context(latents[rows[:, :h]], torch.from_numpy(data.states[rows[:, :h]]), actions[:, :-1])
        predicted, _ = model.rollout(context, actions[:, -1:])
        errors.append((predicted[:, 0] - latents[rows[:, h]]).square().flatten(1).mean(1))
    errors = torch.cat(errors)
    quantiles = tuple(float(v) for v in torch.quantile(errors, torch.tensor(SURPRISE_LEVELS)))
    return SurpriseConfig(levels=SURPRISE_LEVELS, errors=quantiles, threshold=2 * quantiles[-1])


class Trainer(ResumableTrainer):
    """Trains one world model. After `run` the model has the weights of its best validation.

    Under torchrun every process draws the same global batch and takes its share of it; statistics and gradients are
    reduced over all processes, so losses and weights are those of one process on the whole batch.

    device: where it trains; weights are initialised on the CPU, so that a seed gives the same weights on any device.
    inference_model: the model for callers whose data is in CPU memory.
    """

    def __init__(
        self,
        config: ModelConfig,
        model: PredictiveModel,
        anti_collapse: AntiCollapse,
        data: dict[str, EpisodeSet],
        schedule: Schedule,
        weights: LossWeights,
        seed: int,
        device: torch.device = CPU,
    ):
        super().__init__(schedule.updates, schedule.every, device=device)
        if schedule.batch % (processes := distributed.count_ranks()):
            raise InputError(f"recipe: batch {schedule.batch} is not a multiple of the {processes} processes")
        self.loss = WorldModelLoss(config, weights, anti_collapse, schedule.steps)
        if processes > 1:
            distributed.convert_batch_norm(model)
            distributed.convert_batch_norm(self.loss)
        self.config, self.model, self.data, self.schedule, self.seed = config, model, data, schedule, seed
        self.inference_model = on_device(model, device)
        self.loss.to(device)
        self.parameters = [p for p in (*model.parameters(), *self.loss.parameters()) if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=schedule.learning_rate, weight_decay=schedule.weight_decay, fused=True
        )
        self.window_rng = np.random.default_rng([seed, 1])
        self.projection_rng = torch.Generator().manual_seed(seed)
        self.best = copy_weights(own_state(model))
        if schedule.compile:
            model.encoder.compile()  # most of the time is spent here; the names of its weights stay

    def run(self, *arguments, **options) -> None:
        super().run(*arguments, **options)
        self.model.load_state_dict(self.best, strict=False)
        self.model.eval()

    def _update(self) -> dict[str, float]:
        s, p = self.schedule, self.progress
        started = time.monotonic()
        batch = self._draw_batch()
        p.loading += time.monotonic() - started
        self.model.train()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=s.precision == "bfloat16"):
            loss, parts = self.loss(self.model, batch, self.projection_rng)
        values = {name: float(value) for name, value in distributed.average_over_ranks(parts).items()}
        self.check_finite(values["loss"])
        rate = s.learning_rate * learning_rate_factor(p.update, s.updates, s.warm_up)
        descend(loss, self.optimizer, rate, self.parameters)
        self.loss.anti_collapse.after_step(self.model)
        p.frames += s.batch * batch.frames.shape[1]
        return values

    def _draw_batch(self) -> Windows:
        s, c, train = self.schedule, self.config, self.data["train"]
        episode, tick = train.draw(s.batch, s.steps * c.block, self.window_rng)
        own = distributed.rank_slice(s.batch)
        return train.windows(episode[own], tick[own], s.steps, c.block, c.history).to(self.device)

    def validate(self) -> dict[str, float]:
        """Return the health on validation episodes; the weights with the least three-step error ratio are kept."""
        self.model.eval()
        val, train, model = self.data["val"], self.data["train"], self.inference_model
        latents = encode_frames(model, val.frames)
        health = measure_prediction(model, val, latents, max(3, self.schedule.steps), self.config.block, self.seed)
        health |= measure_latents(latents)
        some = np.random.default_rng(self.seed).permutation(len(train))[:PROBE_FRAMES]
        health["probe_r2"] = measure_probe_r2(
            encode_frames(model, train.frames[some]), train.tool[some], latents, val.tool
        )
        p, health["update"] = self.progress, self.progress.update
        p.validation.append(health)
        last = [describe_collapse(h) for h in p.validation[-COLLAPSED_VALIDATIONS:]]
        if len(last) == COLLAPSED_VALIDATIONS and all(last):
            p.stopped = f"update {p.update}: {last[-1]}"
        if health["error_ratio@3"] < p.best:
            p.best = health["error_ratio@3"]
            self.best = copy_weights(own_state(self.model))
        return health

    def state(self) -> dict:
        return {
            "model": own_state(self.model),
            "loss": self.loss.state_dict(),
            "best": self.best,
            "optimizer": self.optimizer.state_dict(),
            "windows": self.window_rng.bit_generator.state,
            "directions": self.projection_rng.get_state(),
        }

    def set_state(self, state: dict) -> None:
        self.model.load_state_dict(state["model"], strict=False)
        self.loss.load_state_dict(state["loss"])
        self.best = state["best"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.window_rng.bit_generator.state = state["windows"]
        self.projection_rng.set_state(state["directions"])


def train_model(
    *,
    data: Path,
    out: Path,
    recipe: str = "reach",
    seed: int = 0,
    name: str | None = None,
    robot: str = "openarm",
    updates: int | None = None,
    policy_updates: int | None = None,
    encoder: str | None = None,
    threads: int = 1,
    device: str = "auto",
    save_every: float = 60.0,
) -> int:
    """Train with a progress display; a second call with the same options resumes an interrupted run.

    name: of the model; default: ROBOT_reach. updates, policy_updates, encoder: override the recipe. device: see
    choose_device; the world model trains on it, its heads on the CPU. save_every: s. Under torchrun all processes train
    together.

    Writes `out`/checkpoint, summary.json and report.html. Returns 1 if training stopped because the latents collapsed.
    Raises InputError.
    """
    torch.set_num_threads(threads)
    keep_freed_memory()
    started, device = time.time(), choose_device(device)
    expect_data(Path(data))
    chosen = override_recipe(read_recipe(recipe), updates, policy_updates, encoder)
    arm = load_robot(robot)
    require_velocity_space(arm)
    out, name = Path(out), name or f"{arm.name}_reach"
    options = {"data": str(data), "seed": seed, "name": name, "robot": robot, "recipe": chosen.model_dump()}
    is_first, processes = distributed.join_group(device) == 0, distributed.count_ranks()
    try:
        if is_first:
            check_same_options(prepare_out(out), options)
        with ProgressDisplay(quiet=not is_first) as bar:
            sets, config = load_training_data(Path(data), arm, name, chosen, bar)
            trainer = make_trainer(config, chosen, sets, seed, out / "checkpoint", device)
            if is_first:
                write_options(out, options)
            _fit_world_model(trainer, out, bar, save_every)
            distributed.leave_group()  # the rest is done by the first process alone
            if not is_first:
                return 0
            latents = {split: encode_frames(trainer.inference_model, part.frames) for split, part in sets.items()}
            heads = fit_heads(config, latents, sets, chosen.schedule, seed, bar, out / HEADS_STATE_FILE)
    finally:
        distributed.leave_group()
    notes = {"recipe": recipe, "torch_threads": threads, "device": device.type, "processes": processes}
    config, summary = _save_checkpoint(trainer, latents, heads, out, options, notes)
    summary["wall_s"] = time.time() - started
    files = [out / "checkpoint", out / "summary.json", out / "report.html"]
    write_summary(files[1], summary)
    with after_summary(files[1]):
        write_report(files[2], config, summary, trainer.progress, heads, latents["val"], sets["val"])
    stopped, test = trainer.progress.stopped, summary["test"]
    lines = [("stopped early", stopped)] if stopped else []
    lines += [
        ("updates", f"{trainer.progress.update} (best on validation: {summary['chosen_update']})"),
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
    with tensorboard_log(out / "tensorboard" if distributed.rank() == 0 else None) as log:

        def show(values: dict) -> None:
            p = trainer.progress
            note = f"{p.frames_per_second:.0f} frames/s, {100 * p.loader_share:.0f} % of the time loading data"
            if p.validation:
                last = p.validation[-1]
                note += f"  error {last['error_ratio@3']:.3f} of persistence, rank {last['effective_rank']:.1f}"
            bar.update(task, values["update"], note)
            log(values)

        try:
            trainer.run(state, show, save_every)
        except FloatingPointError as error:
            raise InputError(f"training diverged at {error}; lower learning_rate in the recipe") from None


def _save_checkpoint(
    trainer: Trainer, latents: dict, heads: Heads, out: Path, options: dict, notes: dict
) -> tuple[ModelConfig, dict]:
    """Calibrate, measure on test episodes, and write the checkpoint with its card; return its config and summary."""
    sets, p, seed, model = trainer.data, trainer.progress, options["seed"], trainer.inference_model
    config = calibrate(heads.describe(trainer.config), model, latents["val"], sets["val"], seed)
    checkpoint = out / "checkpoint"
    save_checkpoint(checkpoint, config, model, heads.policy, heads.reachability, heads.probes)
    arm = load_robot(options["robot"])
    write_reference(checkpoint, reference_frame(sets["train"], [arm.home[joint] for joint in arm.joints]))
    test = measure_model(model, sets, latents, "test", BLOCK, seed)
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


def measure_model(
    model: PredictiveModel,
    sets: dict[str, EpisodeSet],
    latents: dict[str, torch.Tensor],
    split: str,
    block: int,
    seed: int,
) -> dict[str, float]:
    """Return metrics of the episodes of `split`, with the probe fitted on training episodes. latents: by split."""
    data, z = sets[split], latents[split]
    figures = measure_prediction(model, data, z, TEST_STEPS, block, seed) | measure_latents(z)
    return figures | {"probe_r2": measure_probe_r2(latents["train"], sets["train"].tool, z, data.tool)}


def _count_parameters(model: WorldModel) -> dict[str, int]:
    """Return the number of trained parameters by part of the model."""
    parts: Counter[str] = Counter()
    for key, value in own_state(model).items():
        parts[key.split(".")[0]] += value.numel()
    return dict(parts)


def load_training_data(
    data: Path, robot: RobotConfig, name: str, recipe: Recipe, bar: ProgressDisplay
) -> tuple[dict[str, EpisodeSet], ModelConfig]:
    """Return the episodes of a bag or dataset by split, and the config of the model to train. Raises InputError."""
    encoder, shape = _resolve_encoder(recipe)
    needed = max(TEST_STEPS, recipe.schedule.steps) * BLOCK
    fields = (tuple(robot.joints), tuple(robot.gripper))
    size, cameras = recipe.preprocessing.size, recipe.cameras
    episodes = read_splits(data, robot, fields, PERIOD_S, size, needed, bar, cameras)
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
        action=make_action_config(robot),
        proprioception=proprioception,
        # Calibrated once the model is trained.
        distance=DistanceConfig(tolerance=1.0, far=1.0),
        surprise=SurpriseConfig(levels=(0.5,), errors=(1.0,), threshold=1.0),
        camera=read_data_camera(data, *recipe.cameras[:1]),
        robots=(robot.name,),
    )
    return sets, add_head_sizes(config)


def make_action_config(robot: RobotConfig) -> ActionConfig:
    """Return the action space of a model for a robot. Raises InputError where it has no velocity space."""
    space = require_velocity_space(robot)
    return ActionConfig(
        name=space.type,
        dimension=space.dimension,
        max_speed=space.max_speed,
        max_yaw_speed=getattr(space, "max_yaw_speed", None),
    )


def _resolve_encoder(recipe: Recipe):
    """Return the encoder's config and the shape of its latents; a frozen encoder is downloaded if it is not there."""
    if recipe.encoder.type != "transformers":
        return recipe.encoder, (recipe.latent_dim,)
    from jepa_ros.world_model.frozen_encoder import load_frozen_encoder, resolve_encoder, weights_digest

    directory = resolve_encoder(recipe.encoder.source, allow_download=True)
    encoder = load_frozen_encoder(directory, recipe.preprocessing.size)
    config = FrozenEncoderConfig(directory=str(directory.resolve()), sha256=weights_digest(directory))
    return config, (max(1, len(recipe.cameras)) * encoder.tokens, encoder.width)
