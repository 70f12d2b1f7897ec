"""`jepa_ros models inspect`: what a checkpoint's files say of it."""

import hashlib
import json

import pytest

from helpers import small_models
from helpers.checkpoint_files import CARD, refused, run, share, write_model, write_patch_model, write_robot
from jepa_ros import resources
from jepa_ros.checkpoints.facts import read_card_tables
from jepa_ros.world_model.checkpoint import load_checkpoint


@pytest.fixture
def root(tmp_path, monkeypatch):
    return share(tmp_path, monkeypatch)


@pytest.fixture
def model(root):
    directory = write_model(root / "m", gripper=("g",), robots=("slides", "gone"))
    (directory / "README.md").write_text(CARD)
    return directory


def facts(directory):
    result = run("inspect", directory, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_parameters_are_counted_by_part(model):
    found, loaded = facts(model)["parameters"], load_checkpoint(model)
    parts = {name: sum(p.numel() for p in part.parameters()) for name, part in loaded.model.named_children()}
    parts["policy"] = sum(p.numel() for p in loaded.policy.parameters())
    assert found == parts | {"total": sum(parts.values())}


def test_files_have_size_and_sha256(model):
    found = facts(model)
    assert found["model_id"] == load_checkpoint(model).model_id and found["schema_version"] == 2
    for name in ("config.json", "model.safetensors"):
        content = (model / name).read_bytes()
        assert found["files"][name] == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def test_facts_match_the_configuration(model):
    found, config = facts(model), small_models.config(gripper=("g",))
    assert (found["control_rate"], found["action"]["block"], found["step"]) == (10.0, 4, 0.4)
    assert (found["family"], found["latent_shape"], found["history"]) == ("lewm", [4], 2)
    assert found["surprise"] == config.surprise.model_dump(mode="json")
    assert found["preprocessing"]["size"] == 16 and found["proprioception"] == ["a", "b", "g"]
    assert found["encoder"]["type"] == "conv" and found["frozen_encoder"] is None


def test_every_robot_is_checked_against_the_model(model):
    write_robot(resources.config_path("robots", "swapped.yaml"), name="swapped", joints=["b", "a"])
    resources.config_path("robots", "broken.yaml").write_text("name: broken")
    found = facts(model)["robots"]
    assert found["trained_for"] == ["slides", "gone"] and found["fit"]["slides"] is None
    assert "expected the joints ['a', 'b'], found ['b', 'a'] on swapped" in found["fit"]["swapped"]
    assert "broken.yaml: joints: expected a value" in found["fit"]["broken"]
    shown = run("inspect", model).stdout
    assert "trained for; fits" in shown and "trained for; no such robot in config/robots" in shown


def test_the_tables_of_the_model_card_are_shown(model):
    assert facts(model)["card"] == [
        {"columns": ["figure", "value"], "rows": [["probe R²", "0.99"], ["a | b", "1"]]},
        {"columns": ["seed", "reached", "of"], "rows": [["1", "9", ""]]},
    ]
    assert "probe R²" in run("inspect", model).stdout


def test_a_model_without_a_card_has_no_tables(tmp_path):
    assert read_card_tables(tmp_path / "README.md") == []


def test_an_uncalibrated_model_is_reported(root):
    surprise = {"levels": (), "errors": (), "threshold": 1e300}
    directory = write_model(root / "m", surprise=surprise, robots=(), policy=None)
    assert "not calibrated" in run("inspect", directory).stdout


def test_a_frozen_encoder_is_described(root):
    directory = write_patch_model(root / "m")
    found = facts(directory)["frozen_encoder"]
    assert found["kind"] == "dinov2" and found["sha256"] == found["expected_sha256"]
    frozen = load_checkpoint(directory).model.encoder
    assert found["parameters"] == sum(p.numel() for p in frozen.parameters())
    assert "encoder" not in facts(directory)["parameters"]
    change = json.loads((directory / "config.json").read_text())
    change["encoder"]["sha256"] = "0" * 64
    (directory / "config.json").write_text(json.dumps(change))
    assert "SHA-256 NOT the one of the configuration" in " ".join(run("inspect", directory).stdout.split())


def test_brackets_in_names_are_not_markup(root):
    directory = write_model(root / "m", robots=("[bold]arm[/bold]",))
    assert "[bold]arm[/bold]" in run("inspect", directory).stdout


def test_unreadable_files_give_a_one_line_error(model):
    (model / "README.md").write_bytes(b"\xff\xfe")
    assert "README.md: expected a card in UTF-8" in refused("inspect", model)
    (model / "model.safetensors").write_bytes(b"torn")
    assert "model.safetensors: expected a safetensors file" in refused("inspect", model)
    (model / "model.safetensors").unlink()
    assert "found no such file" in refused("inspect", model)
    assert "found nothing of that name" in refused("inspect", "raech")
