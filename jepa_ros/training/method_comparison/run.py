"""`jepa_ros compare methods`: compare methods against collapse, with everything else the same.

tune (a few values each, on validation, briefly) → train (each method, several seeds) → measure on test episodes and in
closed loop → summary.json and report.html
"""

from __future__ import annotations

import multiprocessing
import os
import queue as queues
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

from jepa_ros.allocator import keep_freed_memory
from jepa_ros.datasets.splits import expect_data
from jepa_ros.errors import InputError
from jepa_ros.reporting.output import prepare_out
from jepa_ros.reporting.progress import ProgressDisplay
from jepa_ros.reporting.result import print_result, print_table
from jepa_ros.reporting.summary import write_summary
from jepa_ros.robot.config import load_robot, require_planar_space
from jepa_ros.training.method_comparison.one_run import ComparisonInputs, ComparisonJob, run_job
from jepa_ros.training.method_comparison.report import leading_table, summarise, write_report
from jepa_ros.training.recipe import PUBLISHED_WEIGHTS, override_recipe, read_recipe
from jepa_ros.training.train_model import TEST_STEPS
from jepa_ros.training.trainer import check_same_options, write_options

METHODS = ("sigreg", "vicreg", "ema", "reconstruction", "none")
PUBLISHED_VALUES = {method: weight for method, weight in PUBLISHED_WEIGHTS.items() if method != "none"} | {"ema": 0.004}
"""Value that tuning starts from: LeWM's weight, VICReg's (its 25 : 25 : 1 divided by the 25 of prediction), 1 - BYOL's
first momentum, and a reconstruction as heavy as the prediction."""
TUNING_FACTOR = 10**0.5
CRITERION = f"imagined_cm@{TEST_STEPS}"
START_METHOD = "spawn"
"""How worker processes are started."""


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
    names = _parse_methods(methods)
    expect_data(Path(data))
    require_planar_space(load_robot(robot))
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
    write_options(out, options)
    with ProgressDisplay() as bar, WorkerPool(inputs, workers, bar) as pool:
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
    files = write_summary(out / "summary.json", summary), write_report(out / "report.html", summary)
    columns, rows = leading_table(summary)
    print_table(columns, rows)
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


class WorkerPool:
    """Up to `workers` single-threaded processes that run jobs; started when there is something to do.

    Leaving by an exception, such as Ctrl-C, ends them at once: the next call resumes from what they have saved.
    """

    def __init__(self, inputs: ComparisonInputs, workers: int, bar: ProgressDisplay):
        self._inputs, self._workers, self._bar = inputs, workers, bar
        self._context = multiprocessing.get_context(START_METHOD)
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> WorkerPool:
        return self

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


def _parse_methods(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(text.split(",")))
    if unknown := [name for name in names if name not in METHODS]:
        raise InputError(f"--methods: unknown method '{unknown[0]}'; known are {', '.join(METHODS)}")
    return names
