"""The picture of the training camera beside a checkpoint: which it is, where it goes, and when the doctor shows it."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

from helpers.checkpoint_files import run, share, write_model
from helpers.doctor_cases import MODEL, SETUP, good
from jepa_ros import resources
from jepa_ros.datasets.episodes import Episode, EpisodeSet
from jepa_ros.doctor import overlay
from jepa_ros.images import preprocess
from jepa_ros.training.train_model import copy_references, reference_frame, write_reference
from jepa_ros.world_model.config import REFERENCES, identify

HOME = [0.5, -0.5]  # rad


def episodes(joints=2, cameras=1, count=2, ticks=4) -> EpisodeSet:
    """Each frame's pixels are its number (plus 100 in the second camera); the joints move away from their start."""
    made, rng = [], np.random.default_rng(0)
    for k in range(count):
        number = np.arange(k * (ticks + 1), (k + 1) * (ticks + 1), dtype=np.uint8)
        views = np.stack([number + 100 * c for c in range(cameras)], axis=1)[:, :, None, None, None]
        frames = np.broadcast_to(views, (ticks + 1, cameras, 8, 8, 3))
        states = rng.uniform(1.0, 2.0, (ticks + 1, 2 * joints))
        frames = frames[:, 0] if cameras == 1 else frames
        made.append(Episode(frames, states, np.zeros((ticks, 2)), np.zeros((ticks + 1, 2)), "train"))
    return EpisodeSet(made, np.zeros(2 * joints), np.full(2 * joints, 3.0))


def test_the_reference_image_is_the_frame_nearest_to_the_home_posture():
    data = episodes()
    data.episodes[1].states[2, :2] = HOME
    data.episodes[0].states[3, 2:] = HOME  # velocities count for nothing
    assert (reference_frame(data, HOME) == 5 + 2).all()


def test_without_joint_states_the_reference_image_is_the_first_frame():
    data = episodes(joints=0)
    assert (reference_frame(data, HOME) == 0).all()


def test_the_reference_image_is_from_the_first_camera():
    data = episodes(cameras=2)
    data.episodes[1].states[2, :2] = HOME
    found = reference_frame(data, HOME)
    assert found.shape == (8, 8, 3) and (found == 5 + 2).all()


def test_reference_images_are_read_back_and_copied_unchanged(tmp_path):
    source, target = tmp_path / "a", tmp_path / "b"
    source.mkdir()
    target.mkdir()
    rgb = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    write_reference(source, rgb)
    assert [p.name for p in source.iterdir()] == [REFERENCES[0]]
    assert np.array_equal(overlay.read_image(source / REFERENCES[0]), rgb)
    (source / REFERENCES[1]).write_bytes(b"a person's")
    copy_references(source, target)
    assert {p.name: p.read_bytes() for p in target.iterdir()} == {p.name: p.read_bytes() for p in source.iterdir()}


def test_the_reference_image_does_not_change_the_model_id_and_is_installed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    share(tmp_path, monkeypatch)
    model = write_model(tmp_path / "checkpoint", name="reach")
    before, said = identify(model), run("verify", model).stdout
    write_reference(model, np.zeros((16, 16, 3), np.uint8))
    assert identify(model) == before and run("verify", model).stdout == said
    assert run("install", model).exit_code == 0
    there = resources.installed_models() / "reach"
    assert (there / REFERENCES[0]).read_bytes() == (model / REFERENCES[0]).read_bytes()
    assert run("verify", "reach").exit_code == 0


# -- what the doctor shows ---------------------------------------------------------------------------------------------


def elsewhere():
    """The setup of a model whose training camera is not that of the simulated cell."""
    camera = MODEL.camera.model_copy(update={"position": (1.0, 2.0, 3.0)})
    return replace(SETUP, model=MODEL.model_copy(update={"camera": camera}))


def test_doctor_shows_the_reference_image_unless_it_can_draw_the_arm(tmp_path):
    assert overlay.find_reference(tmp_path, good(), elsewhere()) is None
    rgb = np.full((16, 16, 3), 7, np.uint8)
    write_reference(tmp_path, rgb)
    found, text = overlay.find_reference(tmp_path, good(), elsewhere())
    assert np.array_equal(found, rgb) and text == "the model's reference.png"
    pytest.importorskip("mujoco")
    assert "its present position" in overlay.find_reference(tmp_path, good(), SETUP)[1]


# -- the model that ships ----------------------------------------------------------------------------------------------


def test_the_shipped_reference_image_shows_the_simulated_arm_at_home():
    pytest.importorskip("mujoco")
    from jepa_ros.robot.config import load_robot
    from jepa_ros.sim.cell import ArmCell
    from jepa_ros.sim.scene import Scene

    directory = resources.resolve_model("openarm_reach")
    if not (directory / REFERENCES[0]).is_file():
        pytest.skip("the model that ships is not there")
    size = json.loads((directory / "config.json").read_text())["preprocessing"]["size"]
    found = overlay.read_image(directory / REFERENCES[0])
    assert found.shape == (size, size, 3) and (directory / REFERENCES[0]).stat().st_size < 50_000
    robot = load_robot("openarm")
    cell = ArmCell(Scene(), robot)
    cell.reset(np.array([robot.home[joint] for joint in robot.joints]))
    drawn = preprocess(cell.scene.render(), size)
    cell.scene.close_renderer()
    # Another OpenGL draws other shades; another place of arm or camera is another picture.
    assert cv2.absdiff(found, drawn).mean() < 3.0
