"""V-JEPA 2-AC as a world model: poses that actions move, roll-outs, what is trained, what is refused."""

import json

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from helpers import official_vjepa2
from jepa_ros.errors import InputError
from jepa_ros.world_model import checkpoint
from jepa_ros.world_model.config import read_config
from jepa_ros.world_model.importers.vjepa2_ac import import_vjepa2_ac
from jepa_ros.world_model.protocol import Context
from jepa_ros.world_model.vjepa2_ac import model as vjepa2_ac
from jepa_ros.world_model.vjepa2_ac.model import VJepa2Ac, euler_matrix, matrix_euler, move

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("vjepa2_ac")
    return import_vjepa2_ac(official_vjepa2.write(folder / "official.pt"), folder / "model", size=official_vjepa2.SIZE)


@pytest.fixture(scope="module")
def model(directory):
    return checkpoint.load_checkpoint(directory).model


def window(situations=2, steps=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(situations, steps, 4, official_vjepa2.LATENT, generator=generator)
    return latents, *(torch.rand(situations, steps, 7, generator=generator) - 0.5 for _ in range(2))


# ---------------------------------------------------------------------------------------- poses


def test_an_action_moves_the_pose_in_the_base_frame():
    generator = np.random.default_rng(4)
    states, actions = generator.uniform(-3, 3, (2, 200, 7))
    moved = move(torch.from_numpy(states), torch.from_numpy(actions)).numpy()
    np.testing.assert_allclose(moved[:, :3], states[:, :3] + actions[:, :3])
    turned = Rotation.from_euler("xyz", actions[:, 3:6]) * Rotation.from_euler("xyz", states[:, 3:6])
    np.testing.assert_allclose(moved[:, 3:6], turned.as_euler("xyz"), atol=1e-9)
    np.testing.assert_allclose(moved[:, 6], np.clip(states[:, 6] + actions[:, 6], 0, 1))


@pytest.mark.parametrize("middle", [np.pi / 2, -np.pi / 2])
def test_a_pose_in_gimbal_lock_keeps_its_rotation(middle):
    angles = torch.tensor([[0.3, middle, -0.8], [2.0, middle, 1.0]], dtype=torch.float64)
    matrix = euler_matrix(angles)
    found = matrix_euler(matrix)
    assert torch.equal(found[:, 2], torch.zeros(2, dtype=torch.float64))
    torch.testing.assert_close(euler_matrix(found), matrix, atol=1e-6, rtol=0)


def test_a_zero_action_keeps_the_pose():
    states = torch.rand(2, 3, 7) - 0.5
    states[..., 6].abs_()
    torch.testing.assert_close(move(states, torch.zeros_like(states)), states)


# ---------------------------------------------------------------------------------------- the model


def test_features_and_predictions_are_layer_normalised(model):
    frames = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    latents = model.encode(frames)
    assert latents.shape == (3, *model.latent_shape) == (3, 4, official_vjepa2.LATENT)
    predicted, _ = model.predict(*window())
    for features in (latents, predicted):
        torch.testing.assert_close(features.mean(-1), torch.zeros(features.shape[:-1]), atol=1e-5, rtol=0)
        torch.testing.assert_close(features.var(-1, unbiased=False), torch.ones(features.shape[:-1]), atol=1e-2, rtol=0)


def test_predictions_in_chunks_equal_those_of_the_whole_batch(model, monkeypatch):
    latents, states, actions = window(situations=7)
    with torch.no_grad():
        whole = model.predict(latents, states, actions)
        monkeypatch.setattr(vjepa2_ac, "MAX_TOKENS", 3 * 2 * (4 + 2))
        parts = model.predict(latents, states, actions)
    for found, expected in zip(parts, whole, strict=True):
        torch.testing.assert_close(found, expected)


def test_a_rollout_starts_from_one_frame_and_feeds_back_its_predictions(model):
    latents, states, actions = window(situations=1, steps=3)
    context = Context(latents[:, :1], states[:, :1], actions[:, :0]).expand(2)
    imagined, moved = model.rollout(context, actions.expand(2, -1, -1))
    assert imagined.shape == (2, 3, 4, official_vjepa2.LATENT) and moved.shape == (2, 3, 7)
    two = torch.cat([latents[:, :1], imagined[:1, :1]], 1), torch.cat([states[:, :1], moved[:1, :1]], 1)
    expected, _ = model.predict(*two, actions[:, :2])
    torch.testing.assert_close(imagined[:1, 1], expected[:, 1])


def test_gradients_reach_actions_and_the_predictor_but_not_the_encoder(directory):
    made, _ = checkpoint.build_model(read_config(directory), directory)
    made.train()
    latents, states, actions = window()
    actions.requires_grad_()
    predicted, moved = made.predict(latents, states, actions)
    (predicted.square().mean() + moved.sum()).backward()
    assert torch.isfinite(actions.grad).all() and actions.grad.abs().min() > 0
    assert made.predictor.action_encoder.weight.grad is not None
    assert not any(p.requires_grad for p in made.encoder.parameters())
    assert not made.encoder.training


def test_states_are_normalised_as_configured(model, directory):
    config = read_config(directory)
    mean, std = (0.1,) * 7, (2.0,) * 7
    other = VJepa2Ac(
        model.encoder,
        config.model_copy(
            update={"proprioception": config.proprioception.model_copy(update={"mean": mean, "std": std})}
        ),
    )
    other.predictor.load_state_dict(model.predictor.state_dict())
    latents, states, actions = window()
    expected, moved = model.predict(latents, states, actions)
    found, normalised = other.predict(latents, (states - 0.1) / 2, actions)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(normalised * 2 + 0.1, moved)


def test_the_encoder_weights_are_stored_in_their_own_directory(model, directory):
    assert not [key for key in checkpoint.own_state(model) if key.startswith("encoder")]
    assert (directory / "encoder" / "model.safetensors").is_file()


# ---------------------------------------------------------------------------------------- refusals


def test_states_and_actions_of_another_size_are_refused(model):
    latents, states, actions = window()
    with pytest.raises(InputError, match="states: expected 7 numbers a step, found 6"):
        model.predict(latents, states[..., :6], actions)
    with pytest.raises(InputError, match="actions: expected 7 numbers a step, found 2"):
        model.predict(latents, states, actions[..., :2])


@pytest.mark.parametrize(
    ("section", "changes", "reason"),
    [
        ("action", {"dimension": 2}, "expected action blocks of 7 numbers for vjepa2_ac, found 2"),
        (
            "proprioception",
            {"kind": "joints", "gripper": [], "mean": [], "std": []},
            "proprioception of 7 numbers for vjepa2_ac, found 0",
        ),
        ("predictor", {"heads": 5}, "expected a width that 5 heads divide, found 64"),
        (
            "proprioception",
            {"gripper": ["x"], "mean": [0.0], "std": [1.0]},
            "kind tool_pose: expected no joints and 7 fields, found 0 and 1",
        ),
        ("preprocessing", {"size": 20}, "expected an image size of a multiple of 8 px, found 20 px"),
        ("encoder", {"sha256": "0" * 64}, "expected the weights that the model was trained with, SHA-256 0000"),
        ("encoder", {"directory": "other"}, "expected a directory in transformers' format, found none"),
    ],
)
def test_an_inconsistent_configuration_is_refused(section, changes, reason, directory, tmp_path):
    raw = json.loads((directory / "config.json").read_text())
    raw[section] |= changes
    for path in (directory / "encoder").iterdir():
        (tmp_path / "encoder").mkdir(exist_ok=True)
        (tmp_path / "encoder" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "config.json").write_text(json.dumps(raw))
    (tmp_path / "model.safetensors").write_bytes((directory / "model.safetensors").read_bytes())
    with pytest.raises(InputError) as error:
        checkpoint.load_checkpoint(tmp_path)
    assert reason in str(error.value) and "\n" not in str(error.value)
