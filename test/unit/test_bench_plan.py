"""`jepa_ros bench plan`: same work and same costs on both sides, times in turns, one line for a missing peer."""

import importlib.util
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from jepa_ros import cli
from jepa_ros.bench import planning, same_search
from jepa_ros.bench.closed_loop_comparison import (
    TIMED_EVERY,
    ClosedLoopComparison,
    ReferenceSolver,
    SideResult,
    TimedPlanner,
)
from jepa_ros.bench.matched_models import PUBLISHED_SIZES, MatchedModels, ModelSizes, count_multiplications
from jepa_ros.bench.reference import CemSettings, load_reference
from jepa_ros.bench.same_search import check_device, compare_costs, plan_with_our_cem
from jepa_ros.errors import InputError
from jepa_ros.evaluation.closed_loop import Trial
from jepa_ros.planning.solver import Problem
from jepa_ros.world_model.device import processor_flags
from jepa_ros.world_model.lewm import fast_rollout as imagination

torch.set_num_threads(1)

needs_peer = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("stable_worldmodel", "einops", "transformers")),
    reason="stable-worldmodel is not installed",
)
TINY = ModelSizes(size=28, patch=7, width=24, layers=1, vit_heads=3, latent=24, depth=2, heads=4, mlp=32, hidden=40)
SHORT = CemSettings(samples=12, iterations=2, elites=4, horizon=5)


@pytest.fixture(scope="module")
def models():
    return MatchedModels(load_reference("stable-worldmodel"), TINY, seed=1)


def test_sides_take_turns_and_each_starts_a_round():
    order, told = [], []
    sides = {name: (lambda name=name: order.append(name)) for name in "abc"}
    times = same_search.time_in_turns(sides, 3, told.append)
    assert order == list("abc" + "bca" + "cab") and told == [1, 2, 3]
    assert all(len(times[name].wall) == len(times[name].processor) == 3 for name in "abc")


def test_time_ratios_are_paired_so_that_machine_drift_cancels():
    ours, drift = np.array([1.0, 1.2, 0.9]), np.array([1.0, 3.0, 10.0])
    found = same_search.compare_times(list(2.0 * ours * drift), list(ours * drift))
    assert (found.median, found.min, found.max) == pytest.approx((2.0, 2.0, 2.0)) and found.pairs == 3
    assert same_search.compare_times([2.0, 3.0, 10.0], [1.0, 1.0, 1.0]) == same_search.TimeRatio(3.0, 2.0, 10.0, 3)


def test_an_unknown_reference_is_refused_in_one_line():
    done = CliRunner().invoke(cli.app, ["bench", "plan", "--against", "other-world"])
    assert done.exit_code == 2
    assert done.stderr.splitlines() == ["jepa_ros: --against 'other-world': expected one of stable-worldmodel"]


def test_a_reference_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="the Python package stable-worldmodel is not installed"):
        load_reference("stable-worldmodel")


def test_a_missing_device_is_refused():
    with pytest.raises(InputError, match="--device tpu: give cpu or cuda"):
        check_device("tpu")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="torch finds no GPU"):
            check_device("cuda")


@needs_peer
@pytest.mark.parametrize("horizon", [1, 3, 5])
def test_costs_equal_those_of_the_reference(models, horizon):
    found = compare_costs(models, horizon, 40, seed=0)
    assert found.max_difference < 1e-4
    assert found.costs["reference"].std() > 0.01
    assert found.rank_correlation > 0.9
    assert not np.array_equal(found.costs["bfloat16"], found.costs["float32"])


@needs_peer
def test_one_changed_weight_changes_the_costs():
    models = MatchedModels(load_reference("stable-worldmodel"), TINY, seed=1)
    models.ours.predictor.blocks[0].mlp[1].weight[0, 0] += 0.5
    assert compare_costs(models, 5, 20, seed=0).max_difference > 1e-4


@needs_peer
def test_our_search_finds_a_lower_cost_than_standing_still(models):
    with torch.inference_mode():
        best = plan_with_our_cem(lambda x: models.our_costs(models.ours, x), models, SHORT, seed=0)
        tried = torch.stack([torch.zeros(5, TINY.actions), torch.from_numpy(best).float()])
        still, found = models.our_costs(models.ours, tried)
    assert found < still


@pytest.mark.parametrize("horizon", [1, 2, 5, 8])
def test_our_rollout_never_needs_more_multiplications_than_the_reference(horizon):
    count = count_multiplications(PUBLISHED_SIZES, horizon)
    assert 0 < count["ours"] < count["reference"]


def test_the_published_rollout_needs_139_million_multiplications():
    assert count_multiplications(PUBLISHED_SIZES, 5)["reference"] == pytest.approx(139.4, abs=0.1)


@needs_peer
def test_the_references_search_is_a_solver_that_evaluates_feasible_plans_only():
    target, asked = np.linspace(-0.5, 0.5, 6).reshape(3, 2), []

    def cost(candidates):
        asked.append(candidates)
        return np.square(candidates - target).sum((2, 3))

    problem = Problem(lambda x: np.clip(x, -0.3, 0.3), cost, np.zeros((1, 1, 3, 2)), np.full((1, 1), np.inf))
    solver = ReferenceSolver(load_reference("stable-worldmodel"), CemSettings(64, 8, 8), seed=0)
    solution = solver.solve(problem, math.inf, np.random.default_rng(0))
    assert solution.candidates.shape == (1, 3, 2) and solution.samples == 8 * 64
    assert solution.costs[0] < 0.3 * np.square(target).sum()
    assert max(np.abs(x).max() for x in asked) <= 0.3


def test_bfloat16_support_is_read_from_proc_cpuinfo(tmp_path):
    path = tmp_path / "cpuinfo"
    path.write_text("processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: sse avx512_bf16 amx_bf16\n")
    assert processor_flags(path) == {"sse", "avx512_bf16", "amx_bf16"}
    assert processor_flags(tmp_path / "none") == frozenset()


class Planner:
    """Knows one plan, and is told of situations."""

    def __init__(self, distance):
        self.asked, self.made = [], SimpleNamespace(predicted_distance=distance)

    def reset(self):
        pass

    def plan(self, situation, goal, *more):
        self.asked.append((situation, more))
        return self.made


def test_both_sides_are_timed_on_the_same_situations_and_our_plans_are_executed():
    ours, theirs, bare, found = Planner(0.5), Planner(0.25), [], ClosedLoopComparison()
    both = TimedPlanner(ours, theirs, lambda situation, goal: bare.append(situation), found)
    goal = SimpleNamespace(latent=torch.zeros(4))
    count = 6 * TIMED_EVERY
    assert all(both.plan(number, goal, 0) is ours.made for number in range(1, count + 1))
    assert [situation for situation, _ in ours.asked] == list(range(1, count + 1))
    timed = list(range(TIMED_EVERY, count + 1, TIMED_EVERY))
    assert [situation for situation, _ in theirs.asked] == bare == timed
    assert len(found.ours.times.wall) == len(found.theirs.times.wall) == len(found.bare_times.wall) == len(timed)
    assert found.ours.costs == [2.0] * 6 and found.theirs.costs == [1.0] * 6


def quality(ours, theirs):
    return ClosedLoopComparison(
        SideResult([Trial(reached, 0.2, distance, 3.0) for reached, distance in ours]),
        SideResult([Trial(reached, 0.2, distance, 3.0) for reached, distance in theirs]),
    )


@pytest.mark.parametrize(
    "ours, theirs, not_worse",
    [
        ([(True, 0.001)] * 8, [(True, 0.02)] * 8, True),
        ([(True, 0.02)] * 8, [(True, 0.001)] * 8, False),
        ([(True, 0.001)] * 7 + [(False, 0.1)], [(True, 0.02)] * 8, False),
    ],
)
def test_the_quality_comparison_requires_that_ours_is_not_worse(ours, theirs, not_worse):
    found = planning.quality_figures(quality(ours, theirs))
    assert found["not_worse"] is not_worse
    assert found["ours"]["reached"] == sum(reached for reached, _ in ours)
    low, high = found["ours"]["interval_95"]
    assert low < found["ours"]["reached"] / 8 <= high


def test_targets_are_lower_or_upper_limits():
    least, most = planning.Target("least", 2.0), planning.Target("most", 2.0, at_least=False)
    assert least.is_met(2.0) and most.is_met(2.0)
    assert least.is_met(1.9) is False and most.is_met(2.1) is False
    assert least.is_met(None) is None


@needs_peer
def test_the_command_writes_summary_report_and_table(tmp_path, monkeypatch, capsys):
    options = {"against": "stable-worldmodel", "starts": 0, "repeats": 2, "sizes": TINY, "search": SHORT}
    monkeypatch.setattr(planning, "TARGETS", {name: planning.Target(name, 0.0) for name in planning.TARGETS})
    assert planning.benchmark_planning(out=tmp_path, table=tmp_path / "table.md", fail_on_miss=True, **options) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    for name in ("ratio_same_work_fp32", "ratio_same_work"):
        assert summary["spread"][name]["min"] <= summary[name] <= summary["spread"][name]["max"]
    assert summary["max_cost_difference"] < 1e-4 and summary["ratio_same_quality"] is None
    assert {"machine", "torch", "threads", "flags", "bf16_rank_correlation"} <= set(summary)
    assert "<svg" in (tmp_path / "report.html").read_text()
    assert (tmp_path / "table.md").read_text().startswith("# Planning speed")
    printed = capsys.readouterr().out
    assert "target met\n" in printed and " yes\n" in printed
    assert all(str(tmp_path / name) in printed for name in ("report.html", "table.md"))

    monkeypatch.setitem(planning.TARGETS, "ratio_same_work_fp32", planning.Target("ratio", 1e9))
    assert planning.benchmark_planning(out=tmp_path, **options) == 0
    assert planning.benchmark_planning(out=tmp_path, fail_on_miss=True, **options) == 1


@needs_peer
def test_the_rollout_dtype_can_be_changed_back(models):
    actions = torch.randn(7, 5, TINY.actions, generator=torch.Generator().manual_seed(0))
    model = MatchedModels(load_reference("stable-worldmodel"), TINY, seed=1).ours
    exact = models.our_costs(model, actions)
    model.set_rollout_dtype(torch.bfloat16)
    rounded = models.our_costs(model, actions)
    assert rounded.dtype == torch.float32 and not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, rtol=0.05, atol=0.0)
    model.set_rollout_dtype(torch.float32)
    assert torch.equal(models.our_costs(model, actions), exact)
    with pytest.raises(InputError, match="dtype: expected .* found torch.float16"):
        model.set_rollout_dtype(torch.float16)


@needs_peer
def test_native_and_emulated_bfloat16_differ_by_rounding_only(models, monkeypatch):
    actions = torch.randn(50, 5, TINY.actions, generator=torch.Generator().manual_seed(0))
    found = []
    for has in (True, False):
        monkeypatch.setattr(imagination, "multiplies_bfloat16", lambda device, has=has: has)
        found.append(models.our_costs(models.rounded, actions))
    torch.testing.assert_close(*found, rtol=0.05, atol=0.0)


@needs_peer
def test_gradients_reach_the_actions_in_bfloat16(models):
    actions = torch.zeros(3, 5, TINY.actions, requires_grad=True)
    models.our_costs(models.rounded, actions).sum().backward()
    assert actions.grad.abs().sum((1, 2)).min() > 0.0
