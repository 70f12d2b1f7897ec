"""`jepa_ros calibrate camera`: motion as a model sees it in a recording, and what becomes of the robot's file."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner

from helpers import small_models, turned_camera
from helpers.evaluated_bag import write_bag, write_model
from jepa_ros import cli
from jepa_ros.errors import InputError
from jepa_ros.evaluation.bag import camera_calibration
from jepa_ros.evaluation.bag.reading.recording import EvaluationSpec, LatentStore, Recording
from jepa_ros.resources import config_path
from jepa_ros.robot.camera_rotation import estimate_rotation
from jepa_ros.robot.config import load_robot

FIRST, TICK = 1_700_000_000 * 10**9, 10**8  # ns


def turn(degrees):
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[c, -s], [s, c]])


class FlatWorld:
    """A model whose latent is the tool's place in a picture, bent a little; it moves it in axes of its own."""

    def __init__(self, config):
        self.config, self.history = config, config.history
        self.into = torch.randn(2, config.latent_shape[0], generator=torch.Generator().manual_seed(0))

    def latent(self, xy):
        return torch.sin(0.5 * torch.as_tensor(xy).float() @ self.into)

    def place(self, latents):
        return 2.0 * torch.asin(latents.clamp(-1, 1)) @ torch.linalg.pinv(self.into)

    def rollout(self, context, actions):
        moved = actions[:, 0].reshape(len(actions), self.config.block, 2).mean(1)
        return self.latent(self.place(context.latents[:, -1]) + 0.1 * moved)[:, None], context.states


def recorded(model, degrees, ticks=240, known=0.0):
    """Random moves of a tool that the camera sees turned by so many degrees, and a little noise. known: degrees that
    the gate turned by when it wrote what was executed."""
    config, rng = model.config, np.random.default_rng(0)
    made, xy, latents = Recording(Path("bag"), LatentStore(config.latent_shape)), np.zeros(2), []
    for tick in range(ticks):
        if tick % config.block == 0:
            action = np.clip(rng.normal(size=2), -1, 1) - 0.5 * xy
        stamp = FIRST + tick * TICK
        made.frame_stamps.append(stamp)
        made.frame_epochs.append(0)
        made.actions.add(stamp, 0, turn(-known) @ action)
        seen = turn(-degrees) @ xy + rng.normal(scale=2e-3, size=2)
        latents.append(model.latent(seen).numpy())
        xy = xy + 0.1 * action / config.block
    made.latents.add(np.stack(latents))
    return made


def checkpoint():
    config = small_models.config((), ())
    return SimpleNamespace(config=config, model=FlatWorld(config))


def compare(made, recording, robot):
    return camera_calibration.compare_moves(recording, EvaluationSpec(made, robot), 300)


@pytest.mark.parametrize("degrees", [0.0, 30.0, -75.0])
def test_the_camera_rotation_is_estimated_from_a_recording(degrees):
    made = checkpoint()
    predicted, measured = compare(made, recorded(made.model, degrees), load_robot("openarm"))
    assert 50 < len(predicted) <= 300 and predicted.shape == measured.shape == (len(predicted), 2)
    found = estimate_rotation(predicted, measured)
    assert np.abs(found.rotation[:2, :2] - turn(degrees)).max() < 0.03
    assert found.explained > 0.9 and found.error_degrees < 3.0


def test_calibrating_again_gives_the_whole_rotation():
    made, robot = checkpoint(), turned_camera.robot(turned_camera.about_z(20.0))
    predicted, measured = compare(made, recorded(made.model, 30.0, known=20.0), robot)
    found = estimate_rotation(predicted, measured)
    assert found.degrees == pytest.approx(30.0, abs=2.0) and found.quaternion[2] > 0


def test_a_recording_without_actions_is_refused():
    made = checkpoint()
    still = recorded(made.model, 0.0)
    still.actions = type(still.actions)()
    with pytest.raises(InputError, match="no move with executed actions"):
        compare(made, still, load_robot("openarm"))


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    return write_bag(tmp_path_factory.mktemp("bag") / "play")


def run(*arguments):
    return CliRunner().invoke(cli.app, ["calibrate", "camera", *map(str, arguments)])


def test_a_recording_from_before_a_calibration_can_be_used_to_recalibrate(bag, tmp_path, monkeypatch):
    """The bag was recorded with none: what its arm did is told in the base frame all the same."""
    seen = {}

    def compare_moves(recording, spec, *_):
        actions = np.array(recording.actions.values).reshape(-1, 2)
        seen[spec.robot.camera.rotation_to_base] = camera_calibration.to_base_frame(actions, spec.robot)
        return actions, actions

    monkeypatch.setattr(camera_calibration, "compare_moves", compare_moves)
    own = tmp_path / "own.yaml"
    line = "rotation_to_base: [0, 0, 0.17364818, 0.98480775]"
    text = config_path("robots", "openarm.yaml").read_text()
    own.write_text(text.replace("topic: image}", f"topic: image, {line}}}"))
    assert run("--bag", bag).exit_code == 0
    done = run("--bag", bag, "--robot", own)
    assert done.exit_code == 0 and "recorded with another rotation_to_base than openarm has" in done.output
    plain, turned = seen.values()
    np.testing.assert_allclose(turned, plain, atol=0.03)


def test_an_untrained_model_is_refused_in_one_line(bag, tmp_path):
    model = write_model(tmp_path / "model")
    done = run("--bag", bag, "--model", model, "--robot", "openarm")
    assert done.exit_code == 2 and isinstance(done.exception, SystemExit)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("jepa_ros: ")]
    assert "moves: expected" in line


def test_the_rotation_is_written_to_the_robot_file(bag, tmp_path, monkeypatch):
    measured = np.random.default_rng(0).normal(size=(60, 2))
    monkeypatch.setattr(camera_calibration, "compare_moves", lambda *_: (measured @ turn(20.0), measured))
    done = run("--bag", bag, "--out", tmp_path / "arm.yaml")
    assert done.exit_code == 0, done.output
    assert "turned by 20.0° (± 0.0°) about (0.00, 0.00, 1.00)" in done.output
    wanted = [0, 0, np.sin(np.deg2rad(10)), np.cos(np.deg2rad(10))]
    assert np.allclose(load_robot(tmp_path / "arm.yaml").camera.rotation_to_base, wanted, atol=1e-5)
    before = config_path("robots", "openarm.yaml").read_text()
    assert [line for line in (tmp_path / "arm.yaml").read_text().splitlines() if "camera:" not in line] == [
        line for line in before.splitlines() if "camera:" not in line
    ]
    own = tmp_path / "own.yaml"
    own.write_text(before)
    assert run("--bag", bag, "--robot", own, "--write").exit_code == 0
    assert yaml.safe_load(own.read_text()) == yaml.safe_load((tmp_path / "arm.yaml").read_text())
    assert run("--bag", bag, "--out", own / "arm.yaml").exit_code == 2
    done = run("--bag", bag)
    assert done.exit_code == 0 and "rotation_to_base: [0, 0, 0.173648, 0.984808]" in done.output


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--out", "a.yaml", "--write"), "--out and --write exclude each other"),
        (("--robot", "nobody"), "robot 'nobody'"),
        (("--camera", "/eye"), "expected the image topic /eye"),
        (("--description", "nowhere.urdf"), "--description nowhere.urdf: no such file"),
    ],
)
def test_invalid_input_is_refused_in_one_line(bag, options, words):
    done = run("--bag", bag, *options)
    assert done.exit_code == 2
    assert words in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_a_missing_bag_is_refused():
    assert run("--bag", "nowhere").exit_code == 2
