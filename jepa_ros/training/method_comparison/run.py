"""`jepa_ros compare methods`: ways against collapse side by side, with everything else the same.

tune (a few values each, on validation, briefly) → train (each method, several seeds) → measure on test episodes and in
closed loop → summary.json and report.html
"""

from __future__ import annotations

import multiprocessing
import os
import queue as queues
import signal
import time
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from jepa_ros.allocator import keep_freed_memory
from jepa_ros.datasets.splits import expect_data
from jepa_ros.errors import InputError
from jepa_ros.reporting.progress import ProgressDisplay
from jepa_ros.reporting.summary import write_summary
from jepa_ros.robot.config import load_robot, require_planar_space
from jepa_ros.training.method_comparison.one_run import Job, Source, perform
from jepa_ros.training.method_comparison.report import summarise, write_report
from jepa_ros.training.recipe import PUBLISHED_WEIGHTS, read_recipe
from jepa_ros.training.train_model import TEST_STEPS, changed, check_same_options

METHODS = ("sigreg", "vicreg", "ema", "reconstruction", "none")
PUBLISHED = {method: weight for method, weight in PUBLISHED_WEIGHTS.items() if method != "none"} | {"ema": 0.004}
"""Value that tuning starts from: LeWM's weight, VICReg's (its 25 : 25 : 1 over the 25 of prediction), 1 - BYOL's first
momentum, and a reconstruction as heavy as the prediction."""
FACTOR = 10**0.5
CRITERION = f"imagined_cm@{TEST_STEPS}"


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
    """Compare, showing progress; a second call goes on where the first was interrupted, and may ask for more methods or
    seeds.

    methods: names, with commas between. updates: of each run; default: the recipe's. tune: values tried for each
    method, of tune_updates (default: a quarter) each; 0 takes the published ones. goals: of each run in closed loop.
    Raises InputError.
    """
    started, out = time.time(), Path(out)
    chosen_methods = _known(methods.split(","))
    expect_data(Path(data))
    require_planar_space(load_robot(robot))
    chosen = changed(read_recipe(recipe), updates, 0, None)
    if chosen.encoder.type == "transformers":
        raise InputError(
            f"recipe {recipe}: expected an encoder that is trained, found a frozen one: it cannot collapse"
        )
    chosen = chosen.model_copy(update={"policy": None})
    updates = chosen.schedule.updates
    tune_updates = tune_updates or max(1, updates // 4)
    options = {"data": str(data), "recipe": chosen.model_dump(), "robot": robot, "seed": seed, "tune": tune}
    options |= {"tune_updates": tune_updates, "goals": goals, "goal_seed": goal_seed}
    check_same_options(out, options)
    source = Source(Path(data), robot, chosen, goal_seed)
    trials = [
        Job(method, value, seed, tune_updates, "val", 0, out / "tune" / f"{method}-{value:g}")
        for method in chosen_methods
        for value in grid(method, tune)
    ]
    with ProgressDisplay() as bar, Processes(source, workers, bar) as processes:
        processes.perform(trials, "tuning")
        values = {method: best([t for t in trials if t.method == method], method) for method in chosen_methods}
        jobs = [
            Job(method, values[method], s, updates, "test", goals, out / "runs" / f"{method}-{s}")
            for s in range(seed, seed + seeds)
            for method in chosen_methods
        ]
        processes.perform(jobs, "runs")
    summary = summarise([j.result() for j in jobs], [t.result() for t in trials], values, options, CRITERION)
    summary |= {"updates": updates, "seeds": seeds, "wall_s": time.time() - started}
    write_summary(out / "summary.json", summary)
    write_report(out / "report.html", summary)
    return 0


def grid(method: str, count: int) -> list[float]:
    """`count` values to try: the published one, then alternately larger and smaller ones by factors of √10."""
    if method not in PUBLISHED:
        return []
    exponents = sorted(range(-count, count + 1), key=lambda k: (abs(k), -k))[:count]
    return [float(f"{PUBLISHED[method] * FACTOR**k:.3g}") for k in exponents]


def best(trials: list[Job], method: str) -> float:
    """The value of least error of imagined tool positions on validation episodes; without trials the published one."""

    def error(trial: Job) -> float:
        found = trial.result().get("val", {}).get(CRITERION)
        return float("inf") if found is None else found

    return min(trials, key=error).value if trials else PUBLISHED.get(method, 0.0)


class Processes:
    """Processes of one thread that perform runs, `workers` at a time; started when there is something to do.

    Leaving by an exception, Ctrl-C among them, ends them at once: what they have saved is gone on with the next time.
    """

    def __init__(self, source: Source, workers: int, bar: ProgressDisplay):
        self._source, self._workers, self._bar = source, workers, bar
        self._context = multiprocessing.get_context("spawn")
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, kind: type | None, *exception: object) -> None:
        if kind is not None:
            for child in multiprocessing.active_children():
                child.terminate()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def perform(self, jobs: list[Job], what: str) -> None:
        """Do the jobs that are not done yet. Raises what a job raised, and RuntimeError where a process dies."""
        left = [job for job in jobs if not job.done]
        if not left:
            return
        with _interrupts_ignored():  # by the children too, which inherit it: the parent alone ends them
            if self._pool is None:
                self._news = self._context.Queue()
                self._pool = ProcessPoolExecutor(self._workers, self._context, _begin, (self._news,))
            futures = [self._pool.submit(_perform, self._source, job) for job in left]
        task = self._bar.add(what, sum(job.updates for job in jobs))
        self._watch(futures, {job.name: job.updates for job in jobs if job.done}, task)
        try:
            for future in sorted(futures, key=lambda future: not future.done()):  # if one failed, others may go on
                future.result()
        except BrokenProcessPool:
            raise RuntimeError("compare: a process ended before its run did; out of memory?") from None

    def _watch(self, futures: list[Future], reached: dict[str, int], task) -> None:
        """Show what the processes report until all futures are done, or one has failed."""
        notes: dict[str, str] = {}
        while not (all(future.done() for future in futures) and self._news.empty()):
            if any(future.done() and future.exception() for future in futures):
                return
            try:
                name, update, doing = self._news.get(timeout=0.2)
            except queues.Empty:
                continue
            reached[name], notes[name] = update, f"{name} {doing}"
            if not doing:
                del notes[name]
            self._bar.update(task, sum(reached.values()), ", ".join(notes.values()))


_news = None


def _begin(news) -> None:
    import torch

    global _news
    _news = news
    torch.set_num_threads(1)
    keep_freed_memory()
    os.nice(5)


def _perform(source: Source, job: Job) -> None:
    parent = multiprocessing.parent_process()

    def report(update: int, doing: str) -> None:
        if not parent.is_alive():  # it was killed: nobody waits for this run any more
            os._exit(1)
        _news.put((job.name, update, doing))

    perform(source, job, report)
    report(job.updates, "")


class _interrupts_ignored:
    """SIGINT is ignored within it, and by the processes that are started there from their first instruction on."""

    def __enter__(self) -> None:
        self._handler = signal.signal(signal.SIGINT, signal.SIG_IGN)

    def __exit__(self, *exception: object) -> None:
        signal.signal(signal.SIGINT, self._handler)


def _known(methods: Sequence[str]) -> tuple[str, ...]:
    if unknown := [m for m in methods if m not in METHODS]:
        raise InputError(f"methods: expected some of {', '.join(METHODS)}, found '{unknown[0]}'")
    return tuple(dict.fromkeys(methods))
