"""One run of `jepa_ros compare methods`, in a worker process: trains one method and leaves DIRECTORY/summary.json."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from jepa_ros.datasets.episodes import EpisodeSet
from jepa_ros.evaluation.model_health import (
    encode_frames,
    fit_and_probe,
    measure_latents,
    measure_prediction,
    measure_probe_r2,
)
from jepa_ros.reporting.progress import ProgressDisplay
from jepa_ros.reporting.summary import write_summary
from jepa_ros.robot.config import load_robot
from jepa_ros.training import train_model
from jepa_ros.training.calibration import calibrate_distance, calibrate_surprise
from jepa_ros.training.loop import Trainer
from jepa_ros.training.recipe import Recipe
from jepa_ros.training.train_model import TEST_STEPS, load_training_data
from jepa_ros.training.trainer import STATE_FILE
from jepa_ros.world_model.checkpoint import save_checkpoint
from jepa_ros.world_model.config import ModelConfig
from jepa_ros.world_model.protocol import Context, PredictiveModel

MEASUREMENT_SEED = 0
"""Seed of the windows that metrics are computed on: the same for every run."""


@dataclass(frozen=True)
class ComparisonInputs:
    """Inputs that all runs share. goal_seed: of the goals that all of them try."""

    data: Path
    robot: str
    recipe: Recipe
    goal_seed: int


@dataclass(frozen=True)
class ComparisonJob:
    """A run: `value` is the regulariser's weight, or 1 - the teacher's first momentum. split: of the metrics (val while
    tuning, then test). goals: to try in closed loop."""

    method: str
    value: float
    seed: int
    updates: int
    split: str
    goals: int
    directory: Path

    @property
    def name(self) -> str:
        """Return the name of the run's directory."""
        return self.directory.name

    @property
    def is_finished(self) -> bool:
        """Tell whether the run has left its summary."""
        return (self.directory / "summary.json").exists()

    def result(self) -> dict:
        """Return the summary of a finished run."""
        return json.loads((self.directory / "summary.json").read_text())


def run_job(inputs: ComparisonInputs, job: ComparisonJob, report: Callable[[int, str], None]) -> None:
    """Train, resuming an interrupted run, measure, and leave summary.json. report(update, activity): progress."""
    started = time.time()
    report(0, "reading")
    sets, config = _load(inputs.data, inputs.robot, inputs.recipe.model_dump_json())
    trainer, failed = make_job_trainer(job, inputs.recipe, config, sets), ""
    state = job.directory / STATE_FILE
    trainer.load_if_there(state)
    try:
        trainer.run(state, lambda values: report(values["update"], "training"))
        # The last weights, not those of least error: errors are comparable only within one latent space.
        trainer.model.load_state_dict(torch.load(state, weights_only=True)["model"], strict=False)
        trainer.model.eval()
    except FloatingPointError as error:
        failed = str(error)
    summary = {
        "method": job.method,
        "value": job.value,
        "seed": job.seed,
        "updates": trainer.progress.update,
        "failed": failed or trainer.progress.stopped,
        "validation": [_finite(health) for health in trainer.progress.validation],
        "frames_per_s": trainer.progress.frames_per_second,
        "training_s": trainer.progress.seconds,
    }
    if not failed:
        latents = {split: encode_frames(trainer.model, part.frames) for split, part in sets.items()}
        summary[job.split] = _finite(measure(trainer.model, sets, latents, job.split, config.block))
        if job.goals:
            _save(job.directory / "checkpoint", config, trainer.model, latents["val"], sets["val"])
            summary["closed_loop"] = try_goals(job, inputs, lambda n: report(trainer.progress.update, f"goal {n}"))
    write_summary(job.directory / "summary.json", summary | {"wall_s": time.time() - started})
    state.unlink(missing_ok=True)


def make_job_trainer(job: ComparisonJob, recipe: Recipe, config: ModelConfig, sets: dict[str, EpisodeSet]) -> Trainer:
    """Return the trainer of a job: the same model, data and schedule for every method, initialised from its seed."""
    weight = 0.0 if job.method in ("ema", "none") else job.value
    schedule = {"updates": job.updates, "warm_up": min(recipe.schedule.warm_up, job.updates // 10)}
    changes = {
        "anti_collapse": job.method,
        "loss": recipe.loss.model_copy(update={"anti_collapse": weight}),
        "schedule": recipe.schedule.model_copy(update=schedule),
    }
    start = {"start": 1.0 - job.value} if job.method == "ema" else {}
    recipe = recipe.model_copy(update=changes)
    return train_model.make_trainer(config, recipe, sets, job.seed, job.directory, **start)


def measure(
    model: PredictiveModel,
    sets: dict[str, EpisodeSet],
    latents: dict[str, torch.Tensor],
    split: str,
    block: int,
) -> dict[str, float]:
    """Return metrics of the episodes of `split`, with probes fitted on training episodes. latents: (N, D) by split."""
    data, z = sets[split], latents[split]
    figures = measure_prediction(model, data, z, TEST_STEPS, block, MEASUREMENT_SEED) | measure_latents(z)
    figures["probe_r2"] = measure_probe_r2(latents["train"], sets["train"].tool, z, data.tool)
    errors, still = imagined_tool_errors(model, sets, latents, split, block)
    figures |= {f"imagined_cm@{k + 1}": 100.0 * e for k, e in enumerate(errors)}
    return figures | {f"still_cm@{k + 1}": 100.0 * e for k, e in enumerate(still)}


@torch.inference_mode()
def imagined_tool_errors(
    model: PredictiveModel,
    sets: dict[str, EpisodeSet],
    latents: dict[str, torch.Tensor],
    split: str,
    block: int,
    count: int = 1024,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the root mean square error in m, (TEST_STEPS,), of the tool positions that a linear probe reads from
    predicted latents; and the error of the persistence baseline.

    Unlike errors of latents, these have the same unit in every latent space: small ones need latents that both contain
    the tool position and can be predicted.
    """
    data, h = sets[split], model.history
    episode, tick = data.draw(count, TEST_STEPS * block, np.random.default_rng(MEASUREMENT_SEED))
    rows = data.rows(episode, tick, TEST_STEPS, block, h)
    actions = data.blocks(episode, tick, TEST_STEPS, block, h)
    context = Context(latents[split][rows[:, :h]], torch.from_numpy(data.states[rows[:, :h]]), actions[:, : h - 1])
    imagined, _ = model.rollout(context, actions[:, h - 1 :])
    read = fit_and_probe(latents["train"], sets["train"].tool, imagined.flatten(0, 1)).reshape(count, TEST_STEPS, -1)
    tool = data.tool[rows]

    def error(places: np.ndarray) -> np.ndarray:
        return np.sqrt(((places - tool[:, h:]) ** 2).sum(-1).mean(0))

    return error(read), error(tool[:, h - 1 : h])


def try_goals(job: ComparisonJob, inputs: ComparisonInputs, report: Callable[[int], None]) -> dict:
    """Reach goals with the run's checkpoint by planning alone, without a policy. report(number of goals tried)."""
    from jepa_ros.evaluation.closed_loop import ModelActor, Timing, run_trial
    from jepa_ros.planning.receding_horizon import PlanningSettings, RecedingHorizonController
    from jepa_ros.reporting.summary import percentiles
    from jepa_ros.sim.cell import ArmCell
    from jepa_ros.sim.scene import Scene
    from jepa_ros.sim.tasks.reach import goal_set_hash, make_goals
    from jepa_ros.world_model.checkpoint import load_checkpoint

    robot, scene = load_robot(inputs.robot), Scene()
    cell, timing = ArmCell(scene, robot), Timing()
    goals = make_goals(scene, robot, cell.space, job.goals, inputs.goal_seed)
    checkpoint = load_checkpoint(job.directory / "checkpoint")
    # Iterations of the search are counted, not timed: the result is the same on a busy machine.
    settings = PlanningSettings(budget=math.inf, seed=inputs.goal_seed)
    controller = RecedingHorizonController(checkpoint, cell.space, settings)
    actor, trials = ModelActor(cell, checkpoint, controller, timing), []
    for number, goal in enumerate(goals):
        actor.start(goal)
        trials.append(run_trial(cell, goal, actor, timing, executed=actor.add_executed))
        report(number + 1)
    return {
        "goals": len(trials),
        "goal_set_hash": goal_set_hash(goals),
        "reached": sum(t.reached for t in trials),
        "final_distance_m": percentiles([t.final_distance for t in trials], (50, 90)),
        "per_goal": [t.reached for t in trials],
        "start_distance_m": [t.start_distance for t in trials],
    }


@lru_cache(maxsize=1)
def _load(data: Path, robot: str, recipe_json: str) -> tuple[dict[str, EpisodeSet], ModelConfig]:
    """Return the episodes and the model's config; they are read once by each process."""
    with ProgressDisplay(quiet=True) as bar:
        return load_training_data(data, load_robot(robot), "compared", Recipe.model_validate_json(recipe_json), bar)


def _save(
    directory: Path, config: ModelConfig, model: PredictiveModel, latents: torch.Tensor, data: EpisodeSet
) -> None:
    """Save the calibrated checkpoint. A little noise is added to the latents, as collapsed ones have no distances."""
    noise = 1e-6 * torch.randn(latents.shape, generator=torch.Generator().manual_seed(MEASUREMENT_SEED))
    calibrated = {
        "distance": calibrate_distance(latents + noise, data, MEASUREMENT_SEED),
        "surprise": calibrate_surprise(model, latents, data, config.block),
    }
    save_checkpoint(directory, config.model_copy(update=calibrated), model, None)


def _finite(figures: dict[str, float]) -> dict[str, float | None]:
    """Replace non-finite metrics by None: error ratios of a collapsed model are 0 / 0."""
    return {name: value if math.isfinite(value) else None for name, value in figures.items()}
