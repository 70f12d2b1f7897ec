"""Rows 22 and 23: pickles are never unpickled; a checkpoint that cannot be used is named in one line, and the node
that was to load it stays answering."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers.commands import refused
from helpers.file_damage import Marker, pickled
from jepa_ros.resources import config_path, list_models

pytestmark = pytest.mark.skipif("openarm_reach" not in list_models(), reason="needs the model that ships")


@pytest.fixture
def model(tmp_path):
    """A copy of the model that ships."""
    return shutil.copytree(config_path("models", "openarm_reach"), tmp_path / "m")


def truncate(model):
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return "model.safetensors: expected a safetensors file, found one that cannot be read"


def rename(model):
    tensors = load_file(model / "model.safetensors")
    name = sorted(tensors)[0]
    tensors[f"{name}.other"] = tensors.pop(name)
    save_file(tensors, model / "model.safetensors")
    return f"model.safetensors: the tensor {name} is missing"


def widen(model):
    values = json.loads((model / "config.json").read_text())
    values["predictor"]["mlp"] *= 2
    (model / "config.json").write_text(json.dumps(values))
    return "expected shape"


def blow_up(model):
    """Sizes that would take terabytes are refused before memory is taken for them."""
    values = json.loads((model / "config.json").read_text())
    values["predictor"] |= {"width": 65536, "mlp": 65536, "depth": 256}
    (model / "config.json").write_text(json.dumps(values))
    return "model.safetensors: the tensor model.predictor"


def poison(model):
    tensors = load_file(model / "model.safetensors")
    name = next(n for n in sorted(tensors) if tensors[n].is_floating_point())
    tensors[name] = torch.full_like(tensors[name], torch.nan)
    save_file(tensors, model / "model.safetensors")
    return f"{name}: expected finite values, found NaN or Inf"


def another_arm(model):
    values = json.loads((model / "config.json").read_text())
    values["proprioception"]["joints"] = [f"left_{j}" for j in values["proprioception"]["joints"]]
    (model / "config.json").write_text(json.dumps(values))
    return "expected the joints"


def empty(model):
    (model / "config.json").unlink()
    return "expected a checkpoint with config.json, found README.md, model.safetensors"


def unpickle(model):
    (model / "model.safetensors").write_bytes(pickled(model.parent / "harm"))
    return "model.safetensors: expected a safetensors file, found one that cannot be read"


def unpickle_config(model):
    (model / "config.json").write_bytes(pickled(model.parent / "harm"))
    return "config.json: expected JSON, found"


BROKEN = (truncate, rename, widen, blow_up, poison, another_arm, empty, unpickle, unpickle_config)


@pytest.mark.fault(22)
@pytest.mark.fault(23)
def test_a_node_with_a_broken_checkpoint_logs_why_and_stays_responsive(start, client, model):
    """One node process meets all of them, one configure after the other, and the good model at the end."""
    good = shutil.copytree(model, model.parent / "good")
    process = start("jepa_ros.nodes.world_model", {"model": model, "autostart": False})
    client.wait_for(lambda: client.state("/world_model") == "unconfigured", "the node", 60.0)
    for spoil in BROKEN:
        shutil.rmtree(model)
        shutil.copytree(good, model)
        expected = spoil(model)
        assert not client.transition("/world_model", "configure"), spoil.__name__
        assert client.state("/world_model") == "unconfigured"
        process.says(expected)
        line = next(line for line in process.output.splitlines() if expected in line)
        assert str(model) in line or "model openarm_reach" in line, line
    assert "Traceback" not in process.output and not (model.parent / "harm").exists()
    shutil.rmtree(model)
    shutil.copytree(good, model)
    assert client.transition("/world_model", "configure") and client.state("/world_model") == "inactive"


@pytest.mark.fault(23)
@pytest.mark.parametrize("spoil", [b for b in BROKEN if b not in (unpickle, unpickle_config, another_arm)])
def test_models_verify_names_the_fault_of_a_checkpoint(model, spoil):
    expected = spoil(model)
    line = refused("models", "verify", model)
    assert expected in line and str(model) in line


@pytest.mark.fault(22)
@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_no_command_unpickles_a_checkpoint(model, tmp_path, how):
    harm = tmp_path / "harm"
    for path in (tmp_path / "model.pt", model / "model.safetensors"):
        torch.save({"model": Marker(harm)}, path) if how == "torch" else path.write_bytes(pickled(harm))
    assert "which is never loaded" in refused("models", "verify", tmp_path / "model.pt")
    assert "expected a safetensors file" in refused("models", "verify", model)
    assert "expected a safetensors file" in refused("models", "inspect", model)
    refused("import", "lewm", tmp_path / "model.pt", "--out", tmp_path / "out")
    refused("import", "vjepa2-ac", tmp_path / "model.pt", "--out", tmp_path / "out")
    assert not harm.exists() and not (tmp_path / "out").exists()
