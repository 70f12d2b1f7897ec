"""`jepa_ros train`: a world model and its policy from a recorded bag, to a checkpoint with its card.

bag → episodes → world model (chosen on validation) → policy on its frozen latents → calibration → test → checkpoint
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path

import torch

from jepa_ros.bags.episodes import open_bag, read_camera, read_episodes, read_robot_description
from jepa_ros.errors import InputError
from jepa_ros.evaluation.progress import LongWork
from jepa_ros.evaluation.summary import write_summary
from jepa_ros.robot.config import RobotConfig, load_robot
from jepa_ros.sim.cell import make_action_space
from jepa_ros.training.calibration import calibrate_distance, calibrate_surprise
from jepa_ros.training.card import write_card, write_report
from jepa_ros.training.episodes import Episode, EpisodeSet, normalisation
from jepa_ros.training.loop import Schedule, Trainer, train_policy
from jepa_ros.training.losses import LossWeights
from jepa_ros.training.validation import encode_all, latent_health, prediction_health, probe_r2
from jepa_ros.world_model.checkpoint import build, identify, save
from jepa_ros.world_model.config import (
    ActionConfig,
    DistanceConfig,
    EncoderConfig,
    ModelConfig,
    PolicyConfig,
    PredictorConfig,
    PreprocessingConfig,
    ProprioceptionConfig,
    SurpriseConfig,
)

PERIOD = 0.1  # s of a control tick
BLOCK = 4  # ticks of a model step
SIZE = 64  # pixels
TEST_STEPS = 4


def run(
    *,
    data: Path,
    out: Path,
    seed: int = 0,
    name: str = "openarm_reach",
    robot: str = "openarm",
    updates: int = 4000,
    policy_updates: int = 6000,
    latent_dim: int = 16,
    sigreg: float = 0.1,
    threads: int = 1,
) -> int:
    """Train, showing progress; a second call with the same options goes on where the first was interrupted.

    Writes `out`/checkpoint, summary.json and report.html. Raises InputError.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    started, out = time.time(), Path(out)
    with open_bag(Path(data)):
        pass  # what cannot be read is said before anything is made
    schedule = Schedule(updates=updates, policy_updates=policy_updates, loss=LossWeights(sigreg=sigreg))
    arm = load_robot(robot)
    options = {"data": str(data), "seed": seed, "name": name, "robot": robot, "latent_dim": latent_dim}
    _expect_same(out, options | {"schedule": asdict(schedule)})
    with LongWork() as bar:
        episodes = _load(Path(data), arm, bar)
        sets, config = _prepare(episodes, arm, Path(data), name, latent_dim)
        model, policy = build(config)
        trainer = Trainer(config, model, sets, schedule, seed)
        state = out / "trainer.state"
        if state.exists():
            trainer.load(state)
        task = bar.add("world model", updates, trainer.progress.update)
        trainer.run(state, _shown(bar, task, trainer))
        latents = {split: encode_all(model, part.frames) for split, part in sets.items()}
        task = bar.add("policy", policy_updates)
        curve = train_policy(
            config, policy, latents, sets, schedule, seed, lambda values: bar.update(task, values["update"])
        )
    config = config.model_copy(
        update={
            "distance": calibrate_distance(latents["val"], sets["val"], seed),
            "surprise": calibrate_surprise(model, latents["val"], sets["val"], BLOCK, config.history),
        }
    )
    checkpoint = out / "checkpoint"
    save(checkpoint, config, model, policy)
    test = _test(trainer, latents, sets, seed)
    p = trainer.progress
    summary = {
        "options": options,
        "schedule": asdict(schedule),
        "episodes": {split: len(part.episodes) for split, part in sets.items()},
        "frames": {split: len(part) for split, part in sets.items()},
        "parameters": {
            "encoder": _count(model.encoder),
            "predictor": _count(model.predictor),
            "policy": _count(policy),
        },
        "chosen_update": min(p.validation, key=lambda v: v["error_ratio@3"])["update"],
        "validation": p.validation[-1],
        "test": test,
        "policy": curve[-1],
        "frames_per_s": p.frames / max(p.seconds, 1e-9),
        "training_s": p.seconds,
        "model_id": identify(checkpoint),
        "torch_threads": threads,
        "wall_s": time.time() - started,
    }
    write_summary(out / "summary.json", summary)
    write_report(out / "report.html", config, summary, p, curve, latents["val"], sets["val"])
    write_card(checkpoint / "README.md", config, summary, Path(data))
    return 0


def _shown(bar: LongWork, task, trainer: Trainer):
    def show(values: dict) -> None:
        p = trainer.progress
        note = f"{p.frames / max(p.seconds, 1e-9):.0f} frames/s"
        if p.validation:
            last = p.validation[-1]
            note += f"  error {last['error_ratio@3']:.3f} of persistence, rank {last['effective_rank']:.1f}"
        bar.update(task, values["update"], note)

    return show


def _expect_same(out: Path, options: dict) -> None:
    out.mkdir(parents=True, exist_ok=True)
    path = out / "options.json"
    wanted = json.loads(json.dumps(options))
    if path.exists() and (found := json.loads(path.read_text())) != wanted:
        differ = sorted(k for k in wanted if wanted[k] != found.get(k))
        raise InputError(
            f"{out}: expected to go on with the options it was begun with, found other {', '.join(differ)}"
        )
    path.write_text(json.dumps(wanted))


def _load(data: Path, robot: RobotConfig, bar: LongWork) -> list[Episode]:
    urdf = read_robot_description(data)
    if urdf is None:
        raise InputError(f"bag {data}: expected the topic robot_description, found none")
    space = make_action_space(robot, urdf, PERIOD)
    task = bar.add("frames", None)
    fields = (tuple(robot.joints), tuple(robot.gripper))
    episodes = list(read_episodes(data, space, fields, SIZE, lambda n: bar.update(task, n)))
    frames = sum(len(e.frames) for e in episodes)
    bar.update(task, frames, total=frames)
    for split in ("train", "val", "test"):
        found = [e for e in episodes if e.split == split and len(e.actions) >= TEST_STEPS * BLOCK]
        if not found:
            counts = {s: sum(e.split == s for e in episodes) for s in ("train", "val", "test")}
            raise InputError(f"bag {data}: expected {split} episodes of {TEST_STEPS * BLOCK} ticks, found {counts}")
    return [e for e in episodes if len(e.actions) >= TEST_STEPS * BLOCK]


def _prepare(
    episodes: list[Episode], robot: RobotConfig, data: Path, name: str, latent_dim: int
) -> tuple[dict[str, EpisodeSet], ModelConfig]:
    mean, std = normalisation(episodes)
    sets = {s: EpisodeSet([e for e in episodes if e.split == s], mean, std) for s in ("train", "val", "test")}
    proprioception = ProprioceptionConfig(
        joints=tuple(robot.joints), gripper=tuple(robot.gripper), mean=tuple(mean.tolist()), std=tuple(std.tolist())
    )
    config = ModelConfig(
        name=name,
        encoder=EncoderConfig(latent_dim=latent_dim),
        predictor=PredictorConfig(),
        policy=PolicyConfig(),
        preprocessing=PreprocessingConfig(size=SIZE),
        control_rate=1.0 / PERIOD,
        block=BLOCK,
        action=ActionConfig(name="planar_velocity", dimension=2, max_speed=robot.action_space.max_speed),
        proprioception=proprioception,
        # Calibrated once the model is trained.
        distance=DistanceConfig(tolerance=1.0, far=1.0),
        surprise=SurpriseConfig(levels=(0.5,), errors=(1.0,), threshold=1.0),
        camera=read_camera(data),
        robots=(robot.name,),
    )
    return sets, config


def _test(trainer: Trainer, latents: dict[str, torch.Tensor], sets: dict[str, EpisodeSet], seed: int) -> dict:
    """The figures of the test episodes, looked at once."""
    health = prediction_health(
        trainer.model, sets["test"], latents["test"], TEST_STEPS, BLOCK, trainer.config.history, seed
    )
    health |= latent_health(latents["test"])
    health["probe_r2"] = probe_r2(latents["train"], sets["train"].tool, latents["test"], sets["test"].tool)
    return health


def _count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
