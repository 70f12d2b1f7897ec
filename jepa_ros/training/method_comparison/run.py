"""`jepa_ros compare methods`: compare methods against collapse, with everything else the same.

tune (a few values each, on validation, briefly) → train (each method, several seeds) → measure on test episodes and in
closed loop → summary.json and report.html
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import queue as queues
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from jepa_ros.allocator import keep_freed_memory
from jepa_ros.datasets.episodes import EpisodeSet
from jepa_ros.datasets.recorded_episodes import expect_data
from jepa_ros.errors import InputError
from jepa_ros.evaluation.model_health import encode_frames, fit_and_probe
from jepa_ros.reporting.output import after_summary, prepare_out, removed_if_refused
from jepa_ros.reporting.progress import ProgressDisplay
from jepa_ros.reporting.result import print_result, print_table
from jepa_ros.reporting.summary import write_summary
from jepa_ros.robot.config import load_robot, require_velocity_space
from jepa_ros.training import train_model
from jepa_ros.training.method_comparison.report import leading_table, summarise, write_report
from jepa_ros.training.recipe import PUBLISHED_WEIGHTS, Recipe, override_recipe, read_recipe
from jepa_ros.training.train_model import TEST_STEPS, Trainer, calibrate, load_training_data
from jepa_ros.training.trainer import OPTIONS_FILE, STATE_FILE, check_same_options, write_options
from jepa_ros.world_model.checkpoint import save_checkpoint
from jepa_ros.world_model.config import ModelConfig
from jepa_ros.world_model.protocol import Context, PredictiveModel

MEASUREMENT_SEED = 0  # seed of the windows that metrics are computed on: the same for every run
METHODS = ("sigreg", "vicreg", "ema", "reconstruction", "none")
PUBLISHED_VALUES = {method: weight for method, weight in PUBLISHED_WEIGHTS.items() if method != "none"} | {"ema": 0.004}
"""Value that tuning starts from: LeWM's weight, VICReg's (its 25 : 25 : 1 divided by the 25 of prediction), 1 - BYOL's
first momentum, and a reconstruction as heavy as the prediction."""
TUNING_FACTOR = 10**0.5
CRITERION = f"imagined_cm@{TEST_STEPS}"
START_METHOD = "spawn"  # how worker processes are started


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
            config = calibrate(config, trainer.model, latents["val"], sets["val"], MEASUREMENT_SEED, noise=1e-6)
            save_checkpoint(job.directory / "checkpoint", config, trainer.model, None)
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
    model: PredictiveModel, sets: dict[str, EpisodeSet], latents: dict[str, torch.Tensor], split: str, block: int
) -> dict[str, float]:
    """Return metrics of the episodes of `split`, with probes fitted on training episodes. latents: (N, D) by split."""
    figures = train_model.measure_model(model, sets, latents, split, block, MEASUREMENT_SEED)
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
    from jepa_ros.sim.task import goal_set_hash
    from jepa_ros.sim.tasks import choose_task, make_task
    from jepa_ros.world_model.checkpoint import load_checkpoint

    robot = load_robot(inputs.robot)
    task = make_task(choose_task(robot), robot)
    cell, timing = ArmCell(Scene(add_objects=task.add_objects), robot), Timing()
    goals = task.sample_goals(cell, job.goals, inputs.goal_seed)
    checkpoint = load_checkpoint(job.directory / "checkpoint")
    # Iterations of the search are counted, not timed: the result is the same on a busy machine.
    settings = PlanningSettings(budget=math.inf, seed=inputs.goal_seed)
    controller = RecedingHorizonController(checkpoint, cell.space, settings)
    actor, trials = ModelActor(cell, checkpoint, controller, timing), []
    for number, goal in enumerate(goals):
        actor.start(goal)
        trials.append(run_trial(cell, task, goal, actor, timing, executed=actor.add_executed))
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


def _finite(figures: dict[str, float]) -> dict[str, float | None]:
    """Replace non-finite metrics by None: error ratios of a collapsed model are 0 / 0."""
    return {name: value if math.isfinite(value) else None for name, value in figures.items()}


def compare_methods(
    *,
    data: Path,
    out: Path,
    recipe: str = "reach",
    robot: str = "openarm",
    methods: str = ",".join(METHODS[:4]),
    seeds: int = 3,
    seed: int = 0,
    updates: int | None = None,
    tune: int = 3,
    tune_updates: int | None = None,
    goals: int = 50,
    goal_seed: int = 3000,
    workers: int = 2,
) -> int:
    """Compare with a progress display; a second call resumes an interrupted comparison, and may add methods or seeds.

    methods: comma-separated. updates: of each run; default: the recipe's. tune: values tried for each method, with
    tune_updates each (default: a quarter of `updates`); 0: the published values. goals: of each run in closed loop.
    Raises InputError.
    """
    started = time.time()
    names = tuple(dict.fromkeys(methods.split(",")))
    if unknown := [name for name in names if name not in METHODS]:
        raise InputError(f"--methods: unknown method '{unknown[0]}'; known are {', '.join(METHODS)}")
    expect_data(Path(data))
    require_velocity_space(load_robot(robot))
    chosen = override_recipe(read_recipe(recipe), updates, 0).model_copy(update={"policy": None})
    if chosen.encoder.type == "transformers":
        raise InputError(f"--recipe {recipe}: its encoder is frozen and cannot collapse; give a recipe that trains one")
    updates = chosen.schedule.updates
    tune_updates = tune_updates or max(1, updates // 4)
    options = {"data": str(data), "recipe": chosen.model_dump(), "robot": robot, "seed": seed, "tune": tune}
    options |= {"tune_updates": tune_updates, "goals": goals, "goal_seed": goal_seed}
    out = prepare_out(out)
    check_same_options(out, options, "*/*/*")
    inputs = ComparisonInputs(Path(data), robot, chosen, goal_seed)
    trials = [
        ComparisonJob(method, value, seed, tune_updates, "val", 0, out / "tune" / f"{method}-{value:g}")
        for method in names
        for value in tuning_grid(method, tune)
    ]
    with (
        removed_if_refused(out / OPTIONS_FILE, "*/*/*"),
        ProgressDisplay() as bar,
        WorkerPool(inputs, workers, bar) as pool,
    ):
        write_options(out, options)
        pool.run_jobs(trials, "tuning")
        values = {method: select_value([t for t in trials if t.method == method], method) for method in names}
        jobs = [
            ComparisonJob(method, values[method], s, updates, "test", goals, out / "runs" / f"{method}-{s}")
            for s in range(seed, seed + seeds)
            for method in names
        ]
        pool.run_jobs(jobs, "runs")
    summary = summarise([j.result() for j in jobs], [t.result() for t in trials], values, options, CRITERION)
    summary |= {"updates": updates, "seeds": seeds, "wall_s": time.time() - started}
    write_summary(out / "summary.json", summary)
    columns, rows = leading_table(summary)
    print_table(columns, rows)
    with after_summary(out / "summary.json"):
        write_report(out / "report.html", summary)
    files = out / "summary.json", out / "report.html"
    print_result(f"compare methods: {len(names)} methods, {seeds} seeds, {updates} updates each", paths=files)
    return 0


def tuning_grid(method: str, count: int) -> list[float]:
    """Return `count` values to try: the published one, then alternately larger and smaller ones by factors of √10."""
    if method not in PUBLISHED_VALUES:
        return []
    exponents = sorted(range(-count, count + 1), key=lambda k: (abs(k), -k))[:count]
    return [float(f"{PUBLISHED_VALUES[method] * TUNING_FACTOR**k:.3g}") for k in exponents]


def select_value(trials: list[ComparisonJob], method: str) -> float:
    """Return the value with the least CRITERION on validation episodes; without trials the published one."""

    def error(trial: ComparisonJob) -> float:
        found = trial.result().get("val", {}).get(CRITERION)
        return float("inf") if found is None else found

    return min(trials, key=error).value if trials else PUBLISHED_VALUES.get(method, 0.0)


class WorkerPool(AbstractContextManager):
    """Up to `workers` single-threaded processes that run jobs; started when there is something to do.

    Leaving by an exception, such as Ctrl-C, ends them at once: the next call resumes from what they have saved.
    """

    def __init__(self, inputs: ComparisonInputs, workers: int, bar: ProgressDisplay):
        self._inputs, self._workers, self._bar = inputs, workers, bar
        self._context = multiprocessing.get_context(START_METHOD)
        self._pool: ProcessPoolExecutor | None = None

    def __exit__(self, kind: type | None, *exception: object) -> None:
        if kind is not None:
            for child in multiprocessing.active_children():
                child.terminate()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def run_jobs(self, jobs: list[ComparisonJob], what: str) -> None:
        """Run the jobs that are not finished. Raises what a job raised, and RuntimeError if a process dies."""
        left = [job for job in jobs if not job.is_finished]
        if not left:
            return
        with _ignored_interrupts():  # inherited by the workers: the parent alone ends them
            if self._pool is None:
                self._reports = self._context.Queue()
                self._pool = ProcessPoolExecutor(self._workers, self._context, _start_worker, (self._reports,))
            futures = [self._pool.submit(_run_in_worker, self._inputs, job) for job in left]
        task = self._bar.add(what, sum(job.updates for job in jobs))
        self._show_progress(futures, {job.name: job.updates for job in jobs if job.is_finished}, task)
        try:
            for future in sorted(futures, key=lambda future: not future.done()):  # one may have failed, others not
                future.result()
        except BrokenProcessPool:
            raise RuntimeError("compare methods: a worker process ended before its run did; out of memory?") from None

    def _show_progress(self, futures: list[Future], reached: dict[str, int], task) -> None:
        """Show what the workers report until all futures are done, or one has failed."""
        notes: dict[str, str] = {}
        while not (all(future.done() for future in futures) and self._reports.empty()):
            if any(future.done() and future.exception() for future in futures):
                return
            try:
                name, update, activity = self._reports.get(timeout=0.2)
            except queues.Empty:
                continue
            reached[name], notes[name] = update, f"{name} {activity}"
            if not activity:
                del notes[name]
            self._bar.update(task, sum(reached.values()), ", ".join(notes.values()))


_reports = None


def _start_worker(reports) -> None:
    import torch

    global _reports
    _reports = reports
    torch.set_num_threads(1)
    keep_freed_memory()
    os.nice(5)


def _run_in_worker(inputs: ComparisonInputs, job: ComparisonJob) -> None:
    parent = multiprocessing.parent_process()

    def report(update: int, activity: str) -> None:
        if not parent.is_alive():  # it was killed, so the result would not be used
            os._exit(1)
        _reports.put((job.name, update, activity))

    run_job(inputs, job, report)
    report(job.updates, "")


@contextmanager
def _ignored_interrupts() -> Iterator[None]:
    """Ignore SIGINT, also in processes that are started within, from their first instruction on."""
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
