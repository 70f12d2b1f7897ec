"""`jepa_ros bench offline`: do the figures of `evaluate bag` tell which model will reach more goals?

Models of several amounts of data and training, good ones and bad ones, are judged twice: on a recording that none of
them saw, and by goals that they try to reach in simulation, by search alone. Then: how well does the order of the
offline score agree with the order of success? Every step is a command of its own that anyone can give, and goes on
where it was interrupted.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from jepa_ros.bench.offline_report import write_report
from jepa_ros.errors import InputError
from jepa_ros.reporting.progress import ProgressDisplay
from jepa_ros.reporting.summary import wilson_interval, write_summary

EPISODES = {"little": (40, 21), "much": (160, 22)}
"""Training recordings: episodes and seed."""
JUDGED = (40, 23)
"""The recording that models are judged on."""
UPDATES = (90, 150, 240)
SEEDS = (0, 1)
TIMEOUT = 5.0
"""s for a goal, twice what a good model takes: in more of them models that are far from good reach nearly all, too."""
NEAR = 0.2
"""Models whose success is within this of the best are the ones that it is hard to tell apart."""
DRAWS = 2000


@dataclass(frozen=True)
class Model:
    """One model of the study. data: name of its recording."""

    data: str
    updates: int
    seed: int

    @property
    def name(self) -> str:
        return f"{self.data}-{self.updates}-{self.seed}"


MODELS = tuple(Model(data, updates, seed) for data in EPISODES for updates in UPDATES for seed in SEEDS)


def run(*, out: Path, goals: int, seed: int, workers: int = 2) -> int:
    """Collect, train, judge, try and compare; writes summary.json and report.html. goals: that each model tries, the
    same ones, of this seed."""
    started, out = time.time(), Path(out)
    with ProgressDisplay() as bar:
        task = bar.add("steps", len(EPISODES) + 1 + 3 * len(MODELS))
        steps = Steps(out, lambda done, doing: bar.update(task, done, doing))
        for name, (episodes, its_seed) in {**EPISODES, "judged": JUDGED}.items():
            steps.do(f"data/{name}", "metadata.yaml", "collect", episodes=episodes, seed=its_seed, workers=workers)
        steps.at_once(
            workers,
            [(f"models/{m.name}", "checkpoint/model.safetensors", "train", _training(m, out)) for m in MODELS],
        )
        common = {m: {"model": out / "models" / m.name / "checkpoint", "seed": seed, "policy": "none"} for m in MODELS}
        judge, one = f"evaluate bag {out / 'data/judged'}", {"workers": 1}
        steps.at_once(workers, [(f"judged/{m.name}", "summary.json", judge, common[m] | one) for m in MODELS])
        trial = {"goals": goals, "timeout": TIMEOUT, "workers": 1, "no-baselines": None}
        steps.at_once(workers, [(f"tried/{m.name}", "summary.json", "evaluate sim", common[m] | trial) for m in MODELS])
    found = [_result(m, out) for m in MODELS]
    summary = correlate(found) | {
        "goals": goals,
        "timeout_s": TIMEOUT,
        "seed": seed,
        "models": found,
        "wall_s": time.time() - started,
    }
    write_summary(out / "summary.json", summary)
    write_report(out, summary)
    return 0


def _training(model: Model, out: Path) -> dict:
    return {
        "data": out / "data" / model.data,
        "updates": model.updates,
        "policy-updates": 0,
        "seed": model.seed,
        "name": model.name,
    }


def _result(model: Model, out: Path) -> dict:
    judged = json.loads((out / "judged" / model.name / "summary.json").read_text())
    tried = json.loads((out / "tried" / model.name / "summary.json").read_text())
    return asdict(model) | {
        "name": model.name,
        "score": judged["score"],
        "metrics": judged["metrics"],
        "reached": tried["reached"],
        "rate": tried["rate"],
        "interval_95": wilson_interval(tried["reached"], tried["goals"]),
        "goal_set_hash": tried["goal_set_hash"],
    }


def correlate(models: list[dict]) -> dict:
    """Spearman's rank correlation of score and success, with a percentile bootstrap over models and a permutation test.

    models: score (None counts as the worst) and rate of each. Raises InputError where all rates are the same.
    """
    from scipy.stats import spearmanr

    scores = np.array([-1.0 if m["score"] is None else m["score"] for m in models])
    rates, rng = np.array([m["rate"] for m in models]), np.random.default_rng(0)
    if len(set(rates)) < 2:
        raise InputError(f"bench offline: expected models of different success, found all at {100 * rates[0]:.0f} %")
    drawn = []
    for rows in rng.integers(0, len(models), (DRAWS, len(models))):
        if len(set(rates[rows])) > 1 and len(set(scores[rows])) > 1:
            drawn.append(spearmanr(scores[rows], rates[rows]).statistic)
    rho = float(spearmanr(scores, rates).statistic)
    by_chance = [spearmanr(scores, rng.permutation(rates)).statistic for _ in range(DRAWS)]
    return {
        "rank_correlation": rho,
        "interval_95": [float(q) for q in np.percentile(drawn, (2.5, 97.5))],
        "p_value": float(np.mean(np.array(by_chance) >= rho)),
        "near_the_best": int((rates >= rates.max() - NEAR).sum()),
    }


class Steps:
    """Commands of jepa_ros whose results lie below `out`; what is there already is not done again."""

    def __init__(self, out: Path, progress):
        self._out, self._progress, self._done = out, progress, 0

    def do(self, name: str, result: str, command: str, **options) -> None:
        """One command, with its output in `name`.log."""
        self.at_once(1, [(name, result, command, options)])

    def at_once(self, count: int, steps: list[tuple[str, str, str, dict]]) -> None:
        """Several, `count` at a time. Raises RuntimeError with the last line of one that fails."""
        running: list[tuple[subprocess.Popen, str]] = []
        try:
            for name, result, command, options in steps:
                if not (self._out / name / result).exists():
                    while len(running) >= count:
                        self._reap(running)
                    running.append((self._start(name, command, options), name))
                else:
                    self._tell(name)
            while running:
                self._reap(running)
        finally:
            for process, _ in running:
                process.terminate()
                process.wait()

    def _start(self, name: str, command: str, options: dict) -> subprocess.Popen:
        self._progress(self._done, name)
        words = [sys.executable, "-m", "jepa_ros.cli", *command.split(" ")]
        for key, value in ({"out": self._out / name} | options).items():
            words += [f"--{key}"] + ([] if value is None else [str(value)])
        log = self._out / f"{name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w") as sink:
            return subprocess.Popen(words, stdout=sink, stderr=subprocess.STDOUT)

    def _reap(self, running: list) -> None:
        """Wait until one of them has ended."""
        while not (ended := [r for r in running if r[0].poll() is not None]):
            time.sleep(0.2)
        for process, name in ended:
            running.remove((process, name))
            if process.returncode:
                last = (self._out / f"{name}.log").read_text().strip().splitlines()[-1:]
                raise RuntimeError(f"{name}: ended with code {process.returncode}: {' '.join(last)}")
            self._tell(name)

    def _tell(self, name: str) -> None:
        self._done += 1
        self._progress(self._done, name)
