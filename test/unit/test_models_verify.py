"""`jepa_ros models verify`: a checkpoint that cannot be used is refused in one line, whatever is wrong with it."""

import json
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers.checkpoint_files import refused, run, share, write_model, write_patch_model


@pytest.fixture
def model(tmp_path, monkeypatch):
    return write_model(share(tmp_path, monkeypatch) / "m")


class Bomb:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_a_good_checkpoint_is_described(model):
    result = run("verify", model)
    assert result.exit_code == 0 and result.stdout.startswith("tiny: family lewm, 16 px to 4 numbers")
    assert len(result.stdout.splitlines()) == 1


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("keep", [0, 10, -20])
def test_a_truncated_file_is_refused(model, file, keep):
    path = model / file
    path.write_bytes(path.read_bytes()[:keep])
    assert str(path) in refused("verify", model)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_renamed_file_is_refused(model, file):
    (model / file).rename(model / f"other-{file}")
    line = refused("verify", model)
    assert str(model) in line and file in line


def test_a_renamed_tensor_is_named(model):
    tensors = load_file(model / "model.safetensors")
    tensors["model.foo.weight"] = tensors.pop("model.projector.layers.0.weight")
    save_file(tensors, model / "model.safetensors")
    assert "the tensor model.projector.layers.0.weight" in refused("verify", model)


def test_safetensors_of_another_model_are_refused(model):
    save_file({"bert.embeddings.weight": torch.zeros(3)}, model / "model.safetensors")
    assert f"{model}/model.safetensors: the tensor model." in refused("verify", model)


def test_a_model_of_another_code_base_is_refused(model):
    (model / "config.json").write_text(json.dumps({"model_type": "dinov2", "hidden_size": 384}))
    line = refused("verify", model)
    assert f"{model}/config.json: expected a checkpoint of jepa_ros, found a transformers model of type dinov2" in line


def test_a_directory_without_a_checkpoint_is_refused(model, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "last.ckpt").touch()
    assert "expected a checkpoint with config.json, found last.ckpt" in refused("verify", tmp_path / "folder")


@pytest.mark.parametrize("write", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_a_pickle_is_refused_and_not_run(model, tmp_path, write):
    for place, words in (
        (tmp_path / "model.pt", "found a file that may hold a pickle"),
        (model / "model.safetensors", "expected a safetensors file"),
        (model / "config.json", "expected JSON"),
    ):
        write(Bomb(tmp_path / "run"), place)
        line = refused("verify", tmp_path / "model.pt" if place.parent == tmp_path else model)
        assert str(place) in line and words in line
    assert not (tmp_path / "run").exists()


def test_a_weights_file_is_refused(model):
    assert "found a file" in refused("verify", model / "model.safetensors")


@pytest.fixture
def patch_model(tmp_path, monkeypatch):
    return write_patch_model(share(tmp_path, monkeypatch) / "p")


def test_a_frozen_encoder_is_checked_by_its_sha256(patch_model):
    assert run("verify", patch_model).exit_code == 0
    path = patch_model / "encoder" / "model.safetensors"
    tensors = load_file(path)
    next(iter(tensors.values())).view(-1)[0].add_(1e-3)
    save_file(tensors, path, metadata={"format": "pt"})
    line = refused("verify", patch_model)
    assert f"encoder {patch_model}/encoder: expected" in line and "sha" in line.lower()


def test_a_truncated_frozen_encoder_is_refused(patch_model):
    path = patch_model / "encoder" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    assert f"{patch_model}/encoder" in refused("verify", patch_model)


def test_a_missing_frozen_encoder_is_refused(patch_model):
    (patch_model / "encoder").rename(patch_model / "elsewhere")
    assert f"encoder {patch_model}/encoder" in refused("verify", patch_model)
