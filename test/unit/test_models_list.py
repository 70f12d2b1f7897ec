"""`jepa_ros models list`: what is there, and what is wrong with it."""

import json

import pytest

from helpers.checkpoint_files import run, share, write_model
from jepa_ros import resources
from jepa_ros.world_model.checkpoint import load_checkpoint


@pytest.fixture
def root(tmp_path, monkeypatch):
    return share(tmp_path, monkeypatch)


def entries():
    result = run("list", "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_shipped_and_installed_models_are_listed(root):
    shipped = write_model(resources.config_path("models", "reach"), robots=("slides",))
    installed = write_model(resources.installed_models() / "grasp", seed=1, latent=6)
    first, second = entries()
    assert first == {
        "name": "reach",
        "origin": "shipped",
        "directory": str(shipped),
        "problem": None,
        "family": "lewm",
        "latent_shape": [4],
        "action": {"name": "planar_velocity", "dimension": 2, "block": 4},
        "control_rate": 10.0,
        "step": 0.4,
        "robots": ["slides"],
        "model_id": load_checkpoint(shipped).model_id,
    }
    assert (second["name"], second["origin"], second["latent_shape"]) == ("grasp", "installed", [6])
    assert second["directory"] == str(installed) and second["model_id"] == load_checkpoint(installed).model_id
    table = run("list").stdout
    for words in ("reach", "grasp", "lewm", "planar_velocity, 4 x 2", "0.4 s", first["model_id"], str(installed)):
        assert words in table, table


def test_a_broken_model_is_listed_with_the_problem(root):
    folder = write_model(resources.config_path("models", "broken"))
    (folder / "config.json").write_text("{")
    weightless = write_model(resources.config_path("models", "weightless"))
    (weightless / "model.safetensors").unlink()
    broken, second = entries()
    assert f"{folder}/config.json: expected JSON" in broken["problem"] and "family" not in broken
    assert "expected the weights in model.safetensors, found no such file" in second["problem"]
    result = run("list")
    assert result.exit_code == 0 and f"broken cannot be used: {broken['problem']}" in result.stdout


def test_an_installed_model_hidden_by_a_shipped_one_is_reported(root):
    write_model(resources.config_path("models", "reach"))
    write_model(resources.installed_models() / "reach", seed=1)
    shipped, installed = entries()
    assert shipped["problem"] is None and "hidden by the model reach that ships" in installed["problem"]


def test_without_models_the_table_is_empty(root):
    assert entries() == []
    assert run("list").exit_code == 0
