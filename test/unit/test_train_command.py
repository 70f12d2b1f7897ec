"""`jepa_ros train model` from a bag to a checkpoint: interrupted, under torchrun, and with data that it must refuse."""

import json
import multiprocessing
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.torch import load_file

from helpers import reach_bag
from helpers.training_recipes import TINY
from jepa_ros.bags.cameras import decode_image
from jepa_ros.bags.reader import open_bag
from jepa_ros.bags.typestore import COMPRESSED_IMAGE
from jepa_ros.doctor.overlay import read_image
from jepa_ros.errors import InputError
from jepa_ros.images import preprocess
from jepa_ros.training.recipe import LossWeights, Recipe, list_recipes, read_recipe
from jepa_ros.training.train_model import train_model
from jepa_ros.training.trainer import check_same_options, write_options
from jepa_ros.world_model.checkpoint import load_checkpoint


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    return reach_bag.write(tmp_path_factory.mktemp("bag") / "play")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY))
    return str(path)


@pytest.fixture(scope="module")
def trained(bag, recipe, tmp_path_factory):
    """The folder of a whole run."""
    out = tmp_path_factory.mktemp("trained")
    assert train_model(data=bag, out=out, recipe=recipe, name="tiny") == 0
    return out


def weights(out: Path):
    return load_file(out / "checkpoint" / "model.safetensors")


def command(bag, recipe, out, *launcher):
    arguments = ["train", "model", "--data", str(bag), "--recipe", recipe, "--name", "tiny", "--out", str(out)]
    return [sys.executable, *launcher, "-m", "jepa_ros.cli", *arguments]


def test_training_writes_a_checkpoint_a_model_card_and_metrics(trained):
    checkpoint = load_checkpoint(trained / "checkpoint")
    assert checkpoint.config.latent_shape == (4,) and checkpoint.policy is not None
    assert checkpoint.reachability is not None and list(checkpoint.probes) == ["tool", "joints"]
    assert checkpoint.config.distance.tolerance != 1.0, "calibrated"
    summary = json.loads((trained / "summary.json").read_text())
    assert summary["model_id"] == checkpoint.model_id
    assert {"probe_r2", "effective_rank", "action_sensitivity", "error_ratio@1", "error_ratio@4"} <= set(
        summary["test"]
    )
    assert summary["heads"]["probe_error"]["tool"] == pytest.approx(checkpoint.probes["tool"].error, rel=1e-4)
    assert summary["frames_per_s"] > 0 and 0 <= summary["loader_share"] < 1
    assert (trained / "report.html").stat().st_size > 10_000
    assert "jepa_ros train model --data" in (trained / "checkpoint" / "README.md").read_text()
    assert list((trained / "tensorboard").glob("events.out.tfevents.*"))


def test_a_reference_image_is_stored_in_the_checkpoint(bag, trained):
    found = read_image(trained / "checkpoint" / "reference.png")
    with open_bag(bag) as recording:
        images = [t for t in recording.topics if t.msgtype == COMPRESSED_IMAGE]
        pictures = [decode_image(m) for _, m in recording.decoded(images)]
    assert any(np.array_equal(preprocess(picture, 16), found) for picture in pictures)


def test_a_killed_run_is_resumed_to_the_same_weights(bag, recipe, trained, tmp_path):
    options = {"data": bag, "out": tmp_path, "recipe": recipe, "name": "tiny", "save_every": 0.0}
    process = multiprocessing.get_context("fork").Process(target=train_model, kwargs=options)
    process.start()
    end = time.monotonic() + 120
    while not (tmp_path / "trainer.state").exists() and process.is_alive() and time.monotonic() < end:
        time.sleep(0.01)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert (tmp_path / "trainer.state").exists() and not (tmp_path / "summary.json").exists()
    assert train_model(data=bag, out=tmp_path, recipe=recipe, name="tiny") == 0
    one, other = weights(trained), weights(tmp_path)
    assert all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_torchrun_trains_with_two_processes(bag, recipe, tmp_path):
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    done = subprocess.run(command(bag, recipe, tmp_path, *launcher), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["processes"] == 2 and np.isfinite(summary["test"]["error_ratio@1"])
    assert load_checkpoint(tmp_path / "checkpoint").config.name == "tiny"


def test_resuming_with_other_options_is_refused(bag, recipe, trained):
    with pytest.raises(InputError, match=r"other options \(seed\)"):
        train_model(data=bag, out=trained, recipe=recipe, name="tiny", seed=5)


def test_options_are_compared_only_if_there_is_a_run_to_resume(recipe, tmp_path):
    short, out = reach_bag.write(tmp_path / "bag", ticks=12), tmp_path / "out"
    with pytest.raises(InputError, match="expected train episodes of 16 ticks"):
        train_model(data=short, out=out, recipe=recipe)
    assert not out.exists()
    write_options(out, {"seed": 9})
    check_same_options(out, {"seed": 1})
    (out / "trainer.state").touch()
    check_same_options(out, {"seed": 9})
    with pytest.raises(InputError, match=r"other options \(seed\)"):
        check_same_options(out, {"seed": 1})


def spoilt(path, change):
    return reach_bag.write(path / "bag", spoil=change)


def nan_joint(number, tick, joints, action):
    if (number, tick) == (2, 7):
        joints[3] = np.nan
    return joints, action


def nan_action(number, tick, joints, action):
    return joints, action * (np.inf if (number, tick) == (1, 3) else 1.0)


@pytest.mark.parametrize("change, what", [(nan_joint, "/joint_states"), (nan_action, "/executed")])
def test_nan_values_in_a_bag_are_refused_with_the_topic(tmp_path, recipe, change, what):
    with pytest.raises(InputError, match=f"found 1 {what}: messages with NaN or Inf"):
        train_model(data=spoilt(tmp_path, change), out=tmp_path / "out", recipe=recipe)
    assert not (tmp_path / "out" / "checkpoint").exists()


@pytest.mark.parametrize("name", list_recipes())
def test_shipped_recipes_are_valid(name):
    assert read_recipe(name).schedule.updates > 0


@pytest.mark.parametrize(
    "content, words",
    [
        (yaml.safe_dump(TINY | {"surplus": 1}), ["surplus", "no such field"]),
        ("{", ["expected YAML"]),
        ("[1]", ["expected", "found"]),
        (yaml.safe_dump(TINY | {"history": 0}), ["history"]),
    ],
)
def test_an_invalid_recipe_is_refused_with_the_reason(tmp_path, content, words):
    path = tmp_path / "recipe.yaml"
    path.write_text(content)
    with pytest.raises(InputError) as error:
        read_recipe(path)
    text = str(error.value)
    assert str(path) in text and all(word in text for word in words) and "\n" not in text


def test_an_unknown_recipe_is_refused_with_the_existing_ones():
    with pytest.raises(InputError, match="recipe elsewhere: .*not one of .*reach"):
        read_recipe("elsewhere")


@pytest.mark.parametrize(
    "method, weight", [("sigreg", 0.1), ("vicreg", 1.0), ("ema", 0.0), ("reconstruction", 1.0), ("none", 0.0)]
)
def test_the_loss_weight_defaults_to_the_published_value(method, weight):
    silent = Recipe.model_validate(TINY | {"anti_collapse": method})
    assert silent.loss.anti_collapse == weight and silent.loss.directions == 16
    said = Recipe.model_validate(TINY | {"anti_collapse": method, "loss": {"anti_collapse": 0.3}})
    assert said.loss.anti_collapse == 0.3
    assert Recipe.model_validate(TINY | {"anti_collapse": method, "loss": LossWeights()}).loss.anti_collapse == weight
    assert Recipe.model_validate(silent.model_dump()) == silent
