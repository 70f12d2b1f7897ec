"""`jepa_ros bench offline`: does the offline score of `evaluate bag` predict which model reaches more goals?

Good and bad models, trained with different amounts of data and training, are evaluated twice: on a recording that none
was trained on, and on goals in simulation, planning by search alone. The result is the rank correlation of offline
score and success. Every step is a jepa_ros command of its own; an interrupted benchmark is resumed.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from jepa_ros.errors import InputError
from jepa_ros.reporting import plots
from jepa_ros.reporting.output import after_summary, prepare_out
from jepa_ros.reporting.progress import ProgressDisplay
from jepa_ros.reporting.report import Report
from jepa_ros.reporting.result import print_result
from jepa_ros.reporting.summary import write_summary

EPISODES = {"little": (40, 21), "much": (160, 22)}
"""Training recordings: episodes and seed."""
TEST_RECORDING = (40, 23)
"""Episodes and seed of the recording for the offline score."""
UPDATES = (90, 150, 240)
SEEDS = (0, 1)
GOAL_TIMEOUT_S = 5.0
"""Twice what a good model takes; with more time poor models reach nearly all goals, too."""
NEAR_BEST_RATE = 0.2
"""Models whose success rate is this close to the best are hard to distinguish."""
BOOTSTRAP_DRAWS = 2000
REPORTED_METRICS = ("prediction_ratio@5", "probe_tool_p50_m", "plan_gap_ratio")


@dataclass(frozen=True)
class TrainedModel:
    """One model of the benchmark. data: name of its training recording."""

    data: str
    updates: int
    seed: int

    @property
    def name(self) -> str:
        return f"{self.data}-{self.updates}-{self.seed}"


MODELS = tuple(TrainedModel(data, updates, seed) for data in EPISODES for updates in UPDATES for seed in SEEDS)


def benchmark_offline_score(*, out: Path, goals: int, seed: int, workers: int = 2) -> int:
    """Collect data, train, evaluate offline and in simulation, and correlate; write summary.json, report.html and
    offline.png into `out`. goals: number of goals, the same for each model, drawn with `seed`. Return 0.

    Raises InputError where `out` cannot be written or a step fails.
    """
    started, out = time.time(), prepare_out(out)
    with ProgressDisplay() as bar:
        task = bar.add("steps", len(EPISODES) + 1 + 3 * len(MODELS))
        steps = Steps(out, lambda done, doing: bar.update(task, done, doing))
        for name, (episodes, its_seed) in {**EPISODES, "judged": TEST_RECORDING}.items():
            options = {"episodes": episodes, "seed": its_seed, "workers": workers}
            steps.run(1, [(f"data/{name}", "metadata.yaml", "collect sim", options)])
        training, offline, closed_loop, bag = [], [], [], shlex.quote(str(out / "data/judged"))
        for m in MODELS:
            options = {"data": out / "data" / m.data, "updates": m.updates, "policy-updates": 0}
            options |= {"seed": m.seed, "name": m.name}
            training.append((f"models/{m.name}", "checkpoint/model.safetensors", "train model", options))
            options = {"model": out / "models" / m.name / "checkpoint", "seed": seed, "policy": "none", "workers": 1}
            offline.append((f"judged/{m.name}", "summary.json", f"evaluate bag {bag}", options))
            options = options | {"goals": goals, "timeout": GOAL_TIMEOUT_S, "no-baselines": None}
            closed_loop.append((f"tried/{m.name}", "summary.json", "evaluate sim", options))
        for commands in (training, offline, closed_loop):
            steps.run(workers, commands)
    found = [_result(m, out) for m in MODELS]
    summary = correlate(found) | {
        "goals": goals,
        "timeout_s": GOAL_TIMEOUT_S,
        "seed": seed,
        "models": found,
        "wall_s": time.time() - started,
    }
    write_summary(out / "summary.json", summary)
    with after_summary(out / "summary.json"):
        write_report(out, summary)
    low, high = summary["interval_95"]
    near = f"{summary['near_the_best']} of {len(found)} within {100 * NEAR_BEST_RATE:.0f} % success of the best"
    lines = [
        ("rank correlation", f"{summary['rank_correlation']:.2f} (95 % confidence interval {low:.2f} to {high:.2f})"),
        ("p-value", summary["p_value"]),
        ("models near the best", near),
    ]
    paths = [out / name for name in ("summary.json", "report.html", "offline.png")]
    print_result(f"offline score and success of {len(found)} models, {goals} goals each", lines, paths)
    return 0


def _result(model: TrainedModel, out: Path) -> dict:
    offline, closed_loop = (
        json.loads((out / step / model.name / "summary.json").read_text()) for step in ("judged", "tried")
    )
    return (
        asdict(model)
        | {"name": model.name}
        | {key: offline[key] for key in ("score", "metrics")}
        | {key: closed_loop[key] for key in ("reached", "rate", "interval_95", "goal_set_hash")}
    )


def correlate(models: list[dict]) -> dict:
    """Return Spearman's rank correlation of score and success, a bootstrap interval over models and a permutation test.

    models: score (None counts as the worst) and rate of each. Raises InputError where all rates are equal.
    """
    from scipy.stats import spearmanr

    scores = np.array([-1.0 if m["score"] is None else m["score"] for m in models])
    rates, rng = np.array([m["rate"] for m in models]), np.random.default_rng(0)
    if len(set(rates)) < 2:
        raise InputError(
            f"bench offline: all models have the same success rate ({100 * rates[0]:.0f} %); give more --goals"
        )
    drawn = []
    for rows in rng.integers(0, len(models), (BOOTSTRAP_DRAWS, len(models))):
        if len(set(rates[rows])) > 1 and len(set(scores[rows])) > 1:
            drawn.append(spearmanr(scores[rows], rates[rows]).statistic)
    rho = float(spearmanr(scores, rates).statistic)
    by_chance = [spearmanr(scores, rng.permutation(rates)).statistic for _ in range(BOOTSTRAP_DRAWS)]
    return {
        "rank_correlation": rho,
        "interval_95": [float(q) for q in np.percentile(drawn, (2.5, 97.5))],
        "p_value": float(np.mean(np.array(by_chance) >= rho)),
        "near_the_best": int((rates >= rates.max() - NEAR_BEST_RATE).sum()),
    }


class Steps:
    """Runs jepa_ros commands whose results lie below `out`; a step whose result exists is skipped."""

    def __init__(self, out: Path, progress):
        self._out, self._progress, self._done = out, progress, 0

    def run(self, count: int, steps: list[tuple[str, str, str, dict]]) -> None:
        """Run commands, `count` at a time. Raises InputError with the last line of one that fails.

        steps: (name, result, command, options) each: `name` is the output directory below `out`, whose output goes to
        `name`.log; `result` is a file in it that exists once the command is done.
        """
        running: list[tuple[subprocess.Popen, str]] = []
        try:
            for name, result, command, options in steps:
                if (self._out / name / result).exists():
                    self._report(name)
                    continue
                while len(running) >= count:
                    self._reap(running)
                running.append((self._start(name, command, options), name))
            while running:
                self._reap(running)
        finally:
            for process, _ in running:
                process.terminate()
                process.wait()

    def _start(self, name: str, command: str, options: dict) -> subprocess.Popen:
        self._progress(self._done, name)
        words = [sys.executable, "-m", "jepa_ros.cli", *shlex.split(command)]
        for key, value in ({"out": self._out / name} | options).items():
            words += [f"--{key}"] + ([] if value is None else [str(value)])
        log = self._out / f"{name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w") as sink:
            return subprocess.Popen(words, stdout=sink, stderr=subprocess.STDOUT)

    def _reap(self, running: list) -> None:
        """Wait until one of the running commands has ended."""
        while not (ended := [r for r in running if r[0].poll() is not None]):
            time.sleep(0.2)
        for process, name in ended:
            running.remove((process, name))
            if process.returncode:
                last = (self._out / f"{name}.log").read_text().strip().splitlines()[-1:]
                raise InputError(
                    f"{name}: ended with code {process.returncode}: {' '.join(last)}; see {self._out / name}.log"
                )
            self._report(name)

    def _report(self, name: str) -> None:
        self._done += 1
        self._progress(self._done, name)


def write_report(out: Path, summary: dict) -> None:
    """Write report.html and offline.png into `out`."""
    low, high = summary["interval_95"]
    report = Report("Offline score and success", f"{len(summary['models'])} models, {summary['goals']} goals each")
    report.tiles(
        {
            "rank correlation": f"{summary['rank_correlation']:.2f}",
            "95 % confidence interval": f"{low:.2f} to {high:.2f}",
            "models near the best": f"{summary['near_the_best']} of {len(summary['models'])}",
        }
    )
    plot_success(summary).savefig(out / "offline.png", dpi=120, bbox_inches="tight")
    report.plot(plot_success(summary))
    ranked = sorted(summary["models"], key=lambda m: -m["rate"])
    report.section("Models").table(
        {"model": m["name"], "score": m["score"], "reached": m["reached"], "success": f"{100 * m['rate']:.1f} %"}
        | {name: m["metrics"].get(name) for name in REPORTED_METRICS}
        for m in ranked
    )
    report.write(out / "report.html")


def plot_success(summary: dict):
    """Return a figure of success over score, with the confidence intervals of success."""
    figure, axes = plots.figure(1)
    for data in dict.fromkeys(m["data"] for m in summary["models"]):
        some = [m for m in summary["models"] if m["data"] == data and m["score"] is not None]
        if not some:
            continue
        low, rates, high = 100 * np.array([[m["interval_95"][0], m["rate"], m["interval_95"][1]] for m in some]).T
        below, above = (np.maximum(apart, 0.0) for apart in (rates - low, high - rates))
        axes.errorbar([m["score"] for m in some], rates, yerr=[below, above], fmt="o", capsize=3, label=f"{data} data")
    axes.set(title="Success in closed loop over the score of a bag", xlabel="score", ylabel="goals reached (%)")
    axes.legend()
    return figure
