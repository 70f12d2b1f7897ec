"""`jepa_ros compare methods`: all but the method is the same, runs are not repeated, figures are what they say."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from helpers import reach_bag
from jepa_ros.errors import InputError
from jepa_ros.training.method_comparison import run as comparison
from jepa_ros.training.method_comparison.report import (
    _describe_choice,
    format_mean_std,
    mean_and_std,
    summarise,
    write_report,
)
from jepa_ros.training.method_comparison.run import (
    METHODS,
    ComparisonInputs,
    ComparisonJob,
    compare_methods,
    imagined_tool_errors,
    make_job_trainer,
    run_job,
    select_value,
    tuning_grid,
)
from jepa_ros.training.recipe import Recipe
from jepa_ros.training.train_model import load_training_data
from jepa_ros.world_model.protocol import PredictiveModel

torch.set_num_threads(1)

TINY = {
    "family": "lewm",
    "encoder": {"type": "conv", "channels": [4, 8]},
    "predictor": {"type": "causal", "width": 16, "depth": 1, "heads": 2, "head_dim": 8, "mlp": 32, "dropout": 0.0},
    "projector_hidden": 16,
    "latent_dim": 4,
    "preprocessing": {"size": 16},
    "history": 2,
    "loss": {"directions": 16},
    "schedule": {"updates": 12, "policy_updates": 0, "batch": 8, "steps": 2, "warm_up": 5, "every": 6},
}
FOUR = ("sigreg", "vicreg", "ema", "reconstruction")


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    return reach_bag.write(tmp_path_factory.mktemp("bag") / "play")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY))
    return str(path)


@pytest.fixture(scope="module")
def source(bag):
    return ComparisonInputs(bag, "openarm", Recipe.model_validate(TINY), 3000)


@pytest.fixture(scope="module")
def loaded(source):
    from jepa_ros.reporting.progress import ProgressDisplay
    from jepa_ros.robot.config import load_robot

    with ProgressDisplay(quiet=True) as bar:
        return load_training_data(source.data, load_robot("openarm"), "compared", source.recipe, bar)


def job(directory, method="sigreg", value=0.1, seed=0, updates=12, **changes):
    return ComparisonJob(**{"split": "test", "goals": 0, "directory": directory / f"{method}-{seed}"} | changes | {
        "method": method, "value": value, "seed": seed, "updates": updates
    })  # fmt: skip


def quiet(update, doing):
    pass


# --- the same for all ------------------------------------------------------------------------------------------------


def test_methods_start_with_the_same_weights_and_train_on_the_same_windows(source, loaded, tmp_path):
    sets, config = loaded
    trainers = [make_job_trainer(job(tmp_path, method), source.recipe, config, sets) for method in METHODS]
    first, *others = [t.model.state_dict() for t in trainers]
    for state in others:
        assert all(torch.equal(first[name], value) for name, value in state.items())
    drawn = [t.window_rng.bit_generator.state for t in trainers]
    assert all(state == drawn[0] for state in drawn)
    assert all(t.schedule == trainers[0].schedule for t in trainers)
    assert {m: t.loss.weights.anti_collapse for m, t in zip(METHODS, trainers, strict=True)} == {
        "sigreg": 0.1, "vicreg": 0.1, "ema": 0.0, "reconstruction": 0.1, "none": 0.0
    }  # fmt: skip


def test_the_tuned_value_of_ema_is_one_minus_momentum(source, loaded, tmp_path):
    sets, config = loaded
    trainer = make_job_trainer(job(tmp_path, "ema", 0.05), source.recipe, config, sets)
    assert trainer.loss.anti_collapse.momentum() == pytest.approx(0.95)


def test_the_tuning_grid_starts_at_the_published_value():
    assert tuning_grid("sigreg", 3) == [0.1, 0.316, 0.0316]
    assert tuning_grid("ema", 5) == pytest.approx([0.004, 0.0126, 0.00126, 0.04, 0.0004], rel=0.01)
    assert tuning_grid("vicreg", 1) == [1.0] and tuning_grid("vicreg", 0) == [] == tuning_grid("none", 3)
    assert {len(tuning_grid(method, 4)) for method in FOUR} == {4}


# --- a run -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", FOUR)
def test_a_run_writes_its_metrics(source, tmp_path, method):
    told = []
    made = job(tmp_path, method, 0.01)
    run_job(source, made, lambda update, doing: told.append(update))
    assert told == list(range(13)) and made.is_finished
    result = made.result()
    assert (result["method"], result["value"], result["seed"], result["updates"]) == (method, 0.01, 0, 12)
    assert not result["failed"] and [v["update"] for v in result["validation"]] == [6, 12]
    wanted = {"probe_r2", "effective_rank", "dead_dimensions", "action_sensitivity"}
    wanted |= {f"{name}@{k}" for name in ("error_ratio", "imagined_cm", "still_cm") for k in (1, 2, 3, 4)}
    assert wanted <= set(result["test"]) and all(np.isfinite(result["test"][name]) for name in wanted)
    assert sorted(p.name for p in made.directory.iterdir()) == ["summary.json"]


def test_a_resumed_run_gives_the_same_metrics(source, tmp_path, monkeypatch):
    whole, halved = job(tmp_path / "whole", "reconstruction"), job(tmp_path / "halved", "reconstruction")
    run_job(source, whole, quiet)

    class Interrupt(Exception):
        pass

    def stop(update, doing):
        if update == 7:
            raise Interrupt

    monkeypatch.setattr(
        "jepa_ros.training.trainer.ResumableTrainer.run.__defaults__", (0.0,)
    )  # saved after each update
    with pytest.raises(Interrupt):
        run_job(source, halved, stop)
    assert not halved.is_finished and (halved.directory / "trainer.state").exists()
    updates = []
    run_job(source, halved, lambda update, doing: updates.append(update))
    assert updates == [0, *range(7, 13)]
    assert halved.result()["test"] == whole.result()["test"]


def test_a_run_with_nan_loss_is_recorded_as_failed(source, tmp_path):
    made = job(tmp_path, "sigreg", 1e38)
    run_job(source, made, quiet)
    assert "the loss is" in made.result()["failed"] and "test" not in made.result()


class Knows(PredictiveModel):
    """Its latents are tool positions in dm, and actions move them by what they do."""

    history = 2

    def predict(self, latents, states, actions):
        return latents + actions.unflatten(-1, (-1, 2)).sum(-2) * (10 * reach_bag.SPEED * reach_bag.PERIOD), states


def test_rollout_tool_errors_are_in_metres_and_near_zero_for_an_exact_model(loaded):
    sets, config = loaded
    latents = {split: torch.from_numpy(10 * part.tool).float() for split, part in sets.items()}
    error, still = imagined_tool_errors(Knows(), sets, latents, "test", config.block, 256)
    assert error.shape == still.shape == (4,)
    assert (error < 2e-3).all() and (still > 2 * error).all()
    rng = np.random.default_rng(0)
    episode, tick = sets["test"].draw(4000, 16, rng)
    moved = (
        sets["test"].tool[sets["test"].index(episode, tick + 4)] - sets["test"].tool[sets["test"].index(episode, tick)]
    )
    assert still[0] == pytest.approx(np.sqrt((moved**2).sum(1).mean()), rel=0.15)


# --- all of them -----------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True, scope="module")
def forked():
    """Workers are forked: torch takes seconds to import. The slow test of Ctrl-C has those that are spawned."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison, "START_METHOD", "fork")
        yield


@pytest.fixture(scope="module")
def compared(forked, bag, recipe, tmp_path_factory):
    """Two methods, two seeds, two values each, in two processes."""
    out = tmp_path_factory.mktemp("compared")
    options = {"data": bag, "out": out, "recipe": recipe, "methods": "sigreg,ema", "seeds": 2, "tune": 2, "goals": 0}
    assert compare_methods(**options, workers=2) == 0
    return out, options


@pytest.mark.slow
def test_every_run_writes_its_own_directory(compared):
    out, _ = compared
    assert sorted(p.parent.name for p in out.glob("runs/*/summary.json")) == ["ema-0", "ema-1", "sigreg-0", "sigreg-1"]
    assert sorted(p.parent.name for p in out.glob("tune/*/summary.json")) == [
        "ema-0.004", "ema-0.0126", "sigreg-0.1", "sigreg-0.316"
    ]  # fmt: skip
    page = (out / "report.html").read_text()
    assert "EMA teacher" in page and "comparable only within one latent space" in page and "<svg" in page


@pytest.mark.slow
def test_the_summary_aggregates_the_runs(compared):
    out, _ = compared
    summary = json.loads((out / "summary.json").read_text())
    assert set(summary["methods"]) == {"sigreg", "ema"} and summary["updates"] == 12
    runs = [json.loads((out / "runs" / f"ema-{s}" / "summary.json").read_text()) for s in (0, 1)]
    found = summary["methods"]["ema"]
    for name in ("probe_r2", "imagined_cm@4", "error_ratio@2"):
        values = [r["test"][name] for r in runs]
        assert found["test"][name]["values"] == values and values[0] != values[1]
        assert found["test"][name]["mean"] == pytest.approx(np.mean(values), rel=1e-5)
        assert found["test"][name]["std"] == pytest.approx(np.std(values, ddof=1), rel=1e-4)
    assert all(r["value"] == found["value"] and r["updates"] == 12 for r in runs)
    tried = summary["tuning"]["ema"]
    assert found["value"] == min(tried, key=lambda t: t["imagined_cm@4"])["value"]
    assert json.loads((out / "tune" / "ema-0.004" / "summary.json").read_text())["updates"] == 3, "a quarter"


@pytest.mark.slow
def test_finished_runs_are_not_repeated_when_methods_are_added(compared, monkeypatch):
    out, options = compared
    before = {p: p.stat().st_mtime_ns for p in out.glob("*/*/summary.json")}
    assert compare_methods(**options | {"methods": "sigreg,ema,none"}, workers=1) == 0
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert {p.parent.name for p in out.glob("runs/*/summary.json")} - {p.parent.name for p in before} == {
        "none-0", "none-1"
    }  # fmt: skip
    monkeypatch.setattr(comparison, "ProcessPoolExecutor", lambda *a: pytest.fail("it started a process"))
    assert compare_methods(**options) == 0


@pytest.mark.slow
def test_resuming_a_comparison_with_other_options_is_refused(compared):
    _, options = compared
    with pytest.raises(InputError, match=r"other options \(tune\)"):
        compare_methods(**options | {"tune": 3})


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"methods": "sigreg,dropout"}, "--methods: unknown method 'dropout'; known are sigreg, vicreg"),
        ({"methods": ""}, "--methods: unknown method ''"),
        ({"recipe": "dino_wm"}, "its encoder is frozen"),
        ({"data": "nowhere"}, "nowhere"),
    ],
)
def test_invalid_arguments_are_refused_before_anything_is_written(bag, recipe, tmp_path, changes, said):
    with pytest.raises(InputError, match=said):
        compare_methods(**{"data": bag, "out": tmp_path / "out", "recipe": recipe} | changes)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_errors_in_worker_processes_are_raised_in_the_parent(bag, recipe, tmp_path):
    """The bag's test episodes are too short for windows that the recipe asks for."""
    long = dict(TINY, schedule=TINY["schedule"] | {"steps": 9})
    path = tmp_path / "long.yaml"
    path.write_text(yaml.safe_dump(long))
    with pytest.raises(InputError, match="episodes of 36 ticks"):
        compare_methods(
            data=bag, out=tmp_path / "out", recipe=str(path), methods="sigreg", tune=0, goals=0, seeds=1, workers=1
        )


def alive(group):
    """Commands of the processes that run in a group (Linux)."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, pgrp = (folder / "stat").read_text().rsplit(")", 1)[1].split()[:3]
            if int(pgrp) == group and state != "Z":
                found.append((folder / "cmdline").read_text().replace("\0", " "))
        except OSError:  # it has ended meanwhile
            continue
    return found


@pytest.mark.slow
def test_ctrl_c_ends_all_worker_processes(bag, recipe, tmp_path):
    long = dict(TINY, schedule=TINY["schedule"] | {"updates": 4000, "every": 2000})
    path = tmp_path / "long.yaml"
    path.write_text(yaml.safe_dump(long))
    arguments = ["compare", "methods", "--data", str(bag), "--recipe", str(path), "--out", str(tmp_path / "out")]
    arguments += ["--methods", "vicreg", "--seeds", "1", "--tune", "0", "--goals", "0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "jepa_ros.cli", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # As in a terminal, also where the tests themselves run in the background and have it ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    end = time.monotonic() + 240
    assert "vicreg-0" in process.stderr.readline(), "the worker has begun"
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole group
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    while alive(process.pid) and time.monotonic() < end:
        time.sleep(0.05)
    assert alive(process.pid) == [], "nobody goes on"
    assert not list(tmp_path.glob("out/runs/*/summary.json"))


@pytest.mark.slow
def test_closed_loop_evaluation_uses_the_checkpoint_of_each_run(source, tmp_path):
    made = job(tmp_path, "vicreg", 1.0, goals=1)
    told = []
    run_job(source, made, lambda update, doing: told.append(doing))
    assert told[-1] == "goal 1"
    loop = made.result()["closed_loop"]
    assert loop["goals"] == 1 and loop["reached"] in (0, 1) and loop["per_goal"] == [bool(loop["reached"])]
    assert loop["final_distance_m"]["p50"] < 1.0 and 0.1 < loop["start_distance_m"][0] < 0.5
    assert (made.directory / "checkpoint" / "model.safetensors").exists()


# --- figures ---------------------------------------------------------------------------------------------------------


def test_mean_and_std_ignore_missing_values():
    one, two, none = (mean_and_std(values) for values in ([2.0], [1.0, None, 3.0], [None]))
    assert two == {"mean": 2.0, "std": pytest.approx(2**0.5), "values": [1.0, None, 3.0]}
    assert [format_mean_std(found) for found in (one, two, none)] == ["2", "2 ± 1.4", "–"]


def test_the_value_with_the_least_validation_error_is_selected(tmp_path):
    jobs = [job(tmp_path / str(k), value=v, split="val") for k, v in enumerate((0.1, 0.3, 0.03))]
    for made, found in zip(jobs, (2.0, None, 1.5), strict=True):
        made.directory.mkdir(parents=True)
        (made.directory / "summary.json").write_text(json.dumps({"val": {"imagined_cm@4": found}}))
    assert select_value(jobs, "sigreg") == 0.03
    assert select_value([], "sigreg") == 0.1


def test_a_selected_value_at_the_edge_of_the_grid_is_marked():
    tried = [{"value": v} for v in (0.03, 0.1, 0.3)]
    assert [_describe_choice(t["value"], 0.3, tried) for t in tried] == ["", "", "chosen, at the edge of the grid"]
    assert _describe_choice(0.1, 0.1, tried) == "chosen" == _describe_choice(0.1, 0.1, tried[1:2])


def test_failed_runs_are_in_the_report(tmp_path):
    run_ = {"method": "none", "seed": 0, "value": 0.0, "frames_per_s": 9.0, "validation": []}
    figures = dict.fromkeys(("probe_r2", "effective_rank", "error_ratio@1", "action_sensitivity"), None)
    loop = {"goals": 4, "reached": 1, "goal_set_hash": "x", "final_distance_m": {"p50": 0.1}}
    loop |= {"per_goal": [True, False, False, False], "start_distance_m": [0.12, 0.3, 0.31, 0.15]}
    runs = [
        run_ | {"failed": "update 9: the loss is nan"},
        run_ | {"seed": 1, "failed": "collapsed: ...", "test": figures, "closed_loop": loop},
    ]
    options = {"data": "bag", "goals": 4, "tune": 0, "tune_updates": 1, "seed": 0}
    summary = summarise(runs, [], {"none": 0.0}, options, "imagined_cm@4") | {"updates": 12, "seeds": 2}
    found = summary["methods"]["none"]
    assert found["failed"] == {"0": "update 9: the loss is nan", "1": "collapsed: ..."}
    assert (found["closed_loop"]["reached"], found["closed_loop"]["goals"]) == (1, 4)
    assert found["closed_loop"]["by_distance"] == [0.5, None, None, 0.0, None]
    assert found["closed_loop"]["final_cm"]["mean"] == pytest.approx(10.0)
    write_report(tmp_path / "report.html", summary)
    page = (tmp_path / "report.html").read_text()
    assert "Runs that stopped early" in page and "the loss is nan" in page and "1 of 4" in page
