"""`jepa_ros bench plan`: our planning beside the reference's, in turns on one thread."""

from __future__ import annotations

import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from jepa_ros.bench import cuda
from jepa_ros.bench.pairs import Ratio, ratio
from jepa_ros.bench.peer import load_peer
from jepa_ros.bench.same_quality import SameQuality, same_quality
from jepa_ros.bench.same_work import SameCosts, SameWork, same_costs, same_work
from jepa_ros.bench.twins import PAPER, Search, Sizes, Twins, multiplications
from jepa_ros.reporting.progress import ProgressDisplay
from jepa_ros.reporting.summary import percentiles, wilson_interval, write_summary
from jepa_ros.world_model.checkpoint import load
from jepa_ros.world_model.precision import BFLOAT16_FLAGS, multiplies_bfloat16, processor_flags, processor_name

FLAGS = ("avx2", "avx512f", *BFLOAT16_FLAGS)


@dataclass(frozen=True)
class Target:
    """What a figure of the summary is to be: at least `value`, or at most."""

    value: float
    least: bool

    def met(self, figure: float | None) -> bool | None:
        """None where there is no figure."""
        return None if figure is None else (figure >= self.value) == self.least or figure == self.value


TARGETS = {
    "ratio_same_work_fp32": Target(1.3, least=True),
    "ratio_same_work": Target(2.0, least=True),
    "max_cost_difference": Target(1e-4, least=False),
    "bf16_rank_correlation": Target(0.99, least=True),
    "ratio_same_quality": Target(20.0, least=True),
    "cuda_plan_ms": Target(50.0, least=False),
}


def run(
    *,
    against: str,
    out: Path,
    model: str = "openarm_reach",
    starts: int = 100,
    seed: int = 0,
    repeats: int = 5,
    device: str = "cpu",
    table: Path | None = None,
    fail_on_miss: bool = False,
    sizes: Sizes = PAPER,
    search: Search = Search(),  # noqa: B008
) -> int:
    """Measure, showing progress; writes summary.json and report.html into `out` and, if given, the Markdown `table`.

    sizes, search: of the same work; the same quality's search has three times the rounds, as the published one for the
    longest task. Returns 1 where a target is missed and fail_on_miss. Raises InputError for a peer that is unknown or
    not installed, a device that is not there, and a model that does not fit the simulated arm.
    """
    from jepa_ros.bench.plan_report import write_report, write_table

    peer = load_peer(against)
    cuda.check_device(device)
    checkpoint = load(model)
    torch.set_num_threads(1)
    started = time.time()
    with ProgressDisplay() as bar:
        task = bar.add("the same work", repeats)
        twins = Twins(peer, sizes, seed)
        costs = same_costs(twins, search.horizon, search.samples, seed)
        work = same_work(peer, twins, search, repeats, seed, lambda count: bar.update(task, count))
        quality = None
        if starts:
            longer = search._replace(iterations=3 * search.iterations)
            task = bar.add("the same quality", starts)
            quality = same_quality(
                peer, checkpoint, starts, seed, longer, lambda count, note: bar.update(task, count, note)
            )
        plans = cuda.plan_ms(twins, repeats, seed) if device == "cuda" else None
    summary = _summary(costs, work, quality, plans) | {
        "peer": f"{against} {peer.version}",
        "model": checkpoint.config.name,
        "model_id": checkpoint.model_id,
        "seed": seed,
        "starts": starts,
        "repeats": repeats,
        "search": search._asdict(),
        "million_multiplications_per_sample": multiplications(sizes, search.horizon),
        "wall_s": time.time() - started,
    }
    write_summary(out / "summary.json", summary)
    write_report(out / "report.html", summary, costs, work, quality)
    if table is not None:
        write_table(table, summary)
    missed = [name for name, met in summary["targets_met"].items() if met is False]
    return int(bool(missed) and fail_on_miss)


def _summary(costs: SameCosts, work: SameWork, quality: SameQuality | None, plans: list[float] | None) -> dict:
    figures = {
        "ratio_same_work_fp32": work.wall["float32"].median,
        "ratio_same_work": work.wall["bfloat16"].median,
        "max_cost_difference": costs.max_difference,
        "bf16_rank_correlation": costs.rank_correlation,
        "ratio_same_quality": None,
        "cuda_plan_ms": None if plans is None else float(np.median(plans)),
    }
    spread = {
        "ratio_same_work_fp32": _spread(work.wall["float32"], work.processor["float32"]),
        "ratio_same_work": _spread(work.wall["bfloat16"], work.processor["bfloat16"]),
    }
    found = None if quality is None else quality_figures(quality)
    if found is not None and quality.our_times.wall:
        pair = ratio(quality.their_times.wall, quality.our_times.wall)
        figures["ratio_same_quality"] = pair.median
        spread["ratio_same_quality"] = _spread(pair, ratio(quality.their_times.processor, quality.our_times.processor))
        bare = ratio(quality.bare_times.wall, quality.our_times.wall)
        spread["ratio_same_quality_bare"] = _spread(
            bare, ratio(quality.bare_times.processor, quality.our_times.processor)
        )
    rounded = multiplies_bfloat16(torch.device("cpu"))
    met = {name: target.met(figures[name]) for name, target in TARGETS.items()}
    if not rounded:  # the target is for processors that have the units
        met["ratio_same_work"] = None
    if found is not None and not found["not_worse"]:
        met["ratio_same_quality"] = False
    return figures | {
        "machine": processor_name(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "flags": sorted(processor_flags() & set(FLAGS)),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "bfloat16_units": rounded,
        "targets": {name: target.value for name, target in TARGETS.items()},
        "targets_met": met,
        "spread": spread,
        "plan_s": {name: {"p50": float(np.median(t.wall)), "all": t.wall} for name, t in work.times.items()},
        "quality": found,
    }


def _spread(wall: Ratio, processor: Ratio) -> dict:
    return asdict(wall) | {"processor_time": asdict(processor)}


def quality_figures(quality: SameQuality) -> dict:
    """Both sides' trials and plans; not_worse: ours arrived at least as often, and its final distance is not larger
    beyond doubt (the 95 % interval of the mean difference begins above 0)."""
    sides = {"ours": (quality.ours, quality.our_times, quality.our_costs)}
    sides["reference"] = (quality.theirs, quality.their_times, quality.their_costs)
    found = {}
    for name, (trials, times, costs) in sides.items():
        reached = sum(t.reached for t in trials)
        found[name] = {
            "reached": reached,
            "trials": len(trials),
            "interval_95": wilson_interval(reached, len(trials)),
            "final_distance_m": percentiles([t.final_distance for t in trials], (50, 90), {"mean": np.mean}),
            "seconds_p50": float(np.median([t.seconds for t in trials])),
            "plan_ms": percentiles([1e3 * t for t in times.wall], (50, 90)),
            "predicted_cost": percentiles(costs, (50, 90)),
        }
    apart = np.array([a.final_distance - b.final_distance for a, b in zip(quality.ours, quality.theirs, strict=True)])
    low, high = bootstrap(apart)
    arrived = found["ours"]["reached"] >= found["reference"]["reached"]
    return found | {
        "final_distance_ours_less_reference_m": {"mean": float(apart.mean()), "interval_95": [low, high]},
        "not_worse": bool(arrived and low <= 0.0),
    }


def bootstrap(values: np.ndarray, draws: int = 10_000) -> tuple[float, float]:
    """95 % interval of the mean of values (N,), by drawing them anew (Efron 1979), always the same way."""
    chosen = np.random.default_rng(0).integers(0, len(values), (draws, len(values)))
    low, high = np.percentile(values[chosen].mean(1), (2.5, 97.5))
    return float(low), float(high)
