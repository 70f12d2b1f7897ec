"""Frozen encoders: what they promise to the models around them, and what is refused in one line."""

import hashlib
import json
import subprocess
import sys

import pytest
import torch
from torch import nn

from jepa_ros.errors import InputError
from jepa_ros.world_model.frozen_encoder import load_frozen_encoder, resolve_encoder, weights_digest

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    torch.set_num_threads(1)
    directory = tmp_path_factory.mktemp("encoder")
    sizes = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 12}
    transformers.IJepaModel(transformers.IJepaConfig(**sizes, image_size=16, patch_size=8)).save_pretrained(directory)
    return directory


@pytest.fixture
def encoder_directory(written, tmp_path):
    directory = tmp_path / "encoder"
    directory.mkdir()
    for path in written.iterdir():
        (directory / path.name).write_bytes(path.read_bytes())
    return directory


def refused(directory, size=16):
    with pytest.raises(InputError) as error:
        load_frozen_encoder(directory, size)
    assert str(directory) in str(error.value) and "\n" not in str(error.value)
    return str(error.value)


def test_a_frozen_encoder_has_no_gradients_and_stays_in_evaluation_mode(encoder_directory):
    encoder = load_frozen_encoder(encoder_directory, 16)
    around = nn.Sequential(encoder, nn.Linear(12, 1))
    around.train()
    assert around[1].training and not any(part.training for part in encoder.modules())
    around(torch.randn(2, 3, 16, 16)).sum().backward()
    assert all(p.grad is None and not p.requires_grad for p in encoder.parameters())
    assert around[1].weight.grad is not None


def test_the_number_of_tokens_follows_the_image_size(encoder_directory):
    for size, tokens in ((16, 4), (32, 16)):
        encoder = load_frozen_encoder(encoder_directory, size)
        assert encoder.tokens == tokens
        assert encoder(torch.zeros(1, 3, size, size)).shape == (1, tokens, 12)


def test_a_missing_directory_is_refused(tmp_path):
    assert "expected a directory" in refused(tmp_path / "none")


def test_a_directory_without_config_is_refused(tmp_path):
    assert "expected config.json" in refused(tmp_path)


def test_an_encoder_config_that_is_not_json_is_refused(encoder_directory):
    (encoder_directory / "config.json").write_text("model: ijepa")
    assert "expected a JSON object" in refused(encoder_directory)
    (encoder_directory / "config.json").write_text("[]")
    assert "expected a JSON object" in refused(encoder_directory)


def test_an_unsupported_model_type_is_refused(encoder_directory):
    (encoder_directory / "config.json").write_text(json.dumps({"model_type": "bert"}))
    assert "expected one of dinov2, dinov3_vit, ijepa, vjepa2, found bert" in refused(encoder_directory)


def test_a_pickle_in_place_of_safetensors_is_refused(encoder_directory):
    (encoder_directory / "model.safetensors").unlink()
    assert "found none" in refused(encoder_directory)
    (encoder_directory / "pytorch_model.bin").write_bytes(b"")
    assert "found the pickle pytorch_model.bin" in refused(encoder_directory)


def test_an_image_size_not_divisible_by_the_patch_size_is_refused(encoder_directory):
    assert "a multiple of 8 px, found 20 px" in refused(encoder_directory, size=20)
    assert "a multiple of 8 px, found 0 px" in refused(encoder_directory, size=0)


def test_truncated_weights_are_refused(encoder_directory):
    path = encoder_directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert "expected a model of type ijepa" in refused(encoder_directory)


def test_weights_of_another_shape_are_refused(encoder_directory):
    config = json.loads((encoder_directory / "config.json").read_text())
    (encoder_directory / "config.json").write_text(json.dumps(config | {"hidden_size": 24}))
    assert "embeddings.patch_embeddings.projection.bias: expected shape (24,), found (12,)" in refused(
        encoder_directory
    )


def test_missing_weights_are_refused(encoder_directory):
    config = json.loads((encoder_directory / "config.json").read_text())
    (encoder_directory / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))
    assert "the tensor layers.1." in refused(encoder_directory)


def test_the_digest_covers_all_safetensors_files_in_name_order(tmp_path):
    for name, content in (("b.safetensors", b"two"), ("a.safetensors", b"one"), ("config.json", b"{}")):
        (tmp_path / name).write_bytes(content)
    assert weights_digest(tmp_path) == hashlib.sha256(b"onetwo").hexdigest()
    (tmp_path / "b.safetensors").write_bytes(b"twO")
    assert weights_digest(tmp_path) == hashlib.sha256(b"onetwO").hexdigest()


def test_nothing_is_fetched_unless_allowed(tmp_path):
    assert resolve_encoder(tmp_path) == tmp_path
    with pytest.raises(InputError, match="is fetched when asked for"):
        resolve_encoder("owner/encoder")
    with pytest.raises(InputError, match="found neither"):
        resolve_encoder("/no/such/encoder", allow_download=True)


def test_an_allowed_repository_is_fetched_by_the_hub(tmp_path):
    """With the hub's client offline: from its cache, or one line that says why not."""
    revision = "0" * 40
    cached = tmp_path / "hub" / "models--owner--encoder"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text(revision)
    (cached / "snapshots" / revision).mkdir(parents=True)
    (cached / "snapshots" / revision / "config.json").write_text("{}")
    program = (
        "from jepa_ros.errors import InputError\n"
        "from jepa_ros.world_model.frozen_encoder import resolve_encoder\n"
        "print(resolve_encoder('owner/encoder', allow_download=True))\n"
        "try:\n    resolve_encoder('owner/other', allow_download=True)\n"
        "except InputError as error:\n    print(error)\n"
    )
    environment = {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "PATH": ""}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60)
    found, refusal = done.stdout.splitlines()
    assert found == str(cached / "snapshots" / revision), done.stderr
    assert refusal.startswith("encoder owner/other: expected to fetch it from Hugging Face")
