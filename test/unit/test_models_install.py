"""`jepa_ros models install`: verified, then copied whole or not at all, and never over another model unasked."""

import json
import os
import shutil

import pytest

from helpers.checkpoint_files import refused, run, share, write_model, write_patch_model
from jepa_ros import resources
from jepa_ros.checkpoints import install as installing
from jepa_ros.world_model.checkpoint import load_checkpoint


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return share(tmp_path, monkeypatch)


@pytest.fixture
def model(root):
    directory = write_model(root / "checkpoint", name="reach")
    (directory / "README.md").write_text("# reach\n")
    (directory / "reference.png").write_bytes(b"a picture")
    (directory / "trainer.state").write_bytes(b"PK")
    return directory


def contents(directory):
    return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def installed():
    folder = resources.installed_models()
    return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


def test_an_installed_model_is_loaded_by_its_name(model):
    result = run("install", model)
    assert result.exit_code == 0 and "reach: installed in" in result.stdout
    assert load_checkpoint("reach").model_id == load_checkpoint(model).model_id
    assert resources.list_models() == ["reach"] and installed() == ["reach"]


def test_only_checkpoint_files_are_copied(model):
    run("install", model, "--name", "mine")
    wanted = {k: v for k, v in contents(model).items() if k != "trainer.state"}
    assert contents(resources.installed_models() / "mine") == wanted


def test_installing_the_same_model_twice_changes_nothing(model):
    run("install", model)
    result = run("install", model)
    assert result.exit_code == 0 and "reach: the same model is there already" in result.stdout


def test_another_model_is_not_overwritten_unless_forced(model, root):
    run("install", model)
    other = write_model(root / "other", seed=1, name="reach")
    line = refused("install", other)
    assert "expected no other model of that name, found one: give --name or --force" in line
    assert load_checkpoint("reach").model_id == load_checkpoint(model).model_id
    assert run("install", other, "--force").exit_code == 0
    assert load_checkpoint("reach").model_id == load_checkpoint(other).model_id and installed() == ["reach"]
    assert not (resources.installed_models() / "reach" / "README.md").exists(), "nothing of the other is left"


def test_force_replaces_a_damaged_model(model):
    run("install", model)
    (resources.installed_models() / "reach" / "model.safetensors").unlink()
    assert "--force" in refused("install", model)
    assert run("install", model, "--force").exit_code == 0 and load_checkpoint("reach").config.name == "reach"


def test_the_name_of_a_shipped_model_is_refused(model):
    write_model(resources.config_path("models", "reach"), seed=2)
    for arguments in ((), ("--force",)):
        assert "model name reach: expected one that no shipped model has" in refused("install", model, *arguments)
    assert run("install", model, "--name", "mine").exit_code == 0 and installed() == ["mine"]


@pytest.mark.parametrize("name", ["../up", "a/b", ".hidden", "", "a b"])
def test_an_invalid_name_is_refused(model, name):
    assert f"--name {name!r}: {'must be letters' if name else 'is empty'}" in refused("install", model, "--name", name)
    config = json.loads((model / "config.json").read_text()) | {"name": name}
    (model / "config.json").write_text(json.dumps(config))
    refused("install", model)
    assert installed() == []


def test_an_invalid_model_is_not_installed(model):
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    assert str(path) in refused("install", model)
    assert installed() == []


def test_an_interrupted_install_leaves_nothing_behind(model, root, monkeypatch):
    run("install", model)
    before = contents(resources.installed_models())
    other = write_model(root / "other", seed=1, name="reach")
    real, copied = shutil.copyfile, []

    def interrupted(source, target):
        if copied:
            raise KeyboardInterrupt
        copied.append(real(source, target))

    monkeypatch.setattr(shutil, "copyfile", interrupted)
    assert run("install", other, "--force").exit_code == 130
    assert copied and contents(resources.installed_models()) == before and installed() == ["reach"]


def test_a_failed_replacement_restores_the_previous_model(model, root, monkeypatch):
    run("install", model)
    before = contents(resources.installed_models())
    other = write_model(root / "other", seed=1, name="reach")
    target, real = resources.installed_models() / "reach", os.rename

    def rename(self, to):
        if to == target and ".old." not in str(self):
            raise OSError("disk full")
        real(self, to)
        return type(self)(to)

    monkeypatch.setattr(type(target), "rename", rename)
    assert "cannot be written: disk full" in refused("install", other, "--force")
    assert contents(resources.installed_models()) == before and installed() == ["reach"]


def test_an_unwritable_folder_gives_a_one_line_error(model, root):
    (root / "home").write_text("a file")
    assert "cannot be written:" in refused("install", model)


def test_a_frozen_encoder_is_installed_with_the_model(root):
    run("install", write_patch_model(root / "p"))
    shutil.rmtree(root / "p")
    checkpoint = load_checkpoint("small")
    assert checkpoint.directory == resources.installed_models() / "small"
    assert contents(checkpoint.directory).keys() == {
        "config.json",
        "model.safetensors",
        "encoder/config.json",
        "encoder/model.safetensors",
    }


def change_encoder(directory, place):
    config = json.loads((directory / "config.json").read_text())
    config["encoder"]["directory"] = str(place)
    (directory / "config.json").write_text(json.dumps(config))


def test_a_frozen_encoder_by_absolute_path_is_not_copied(root):
    directory = write_patch_model(root / "p")
    (directory / "encoder").rename(root / "encoder")
    change_encoder(directory, "../encoder")
    line = refused("install", directory)
    assert "encoder.directory: expected a folder in the checkpoint or an absolute path, found ../encoder" in line
    change_encoder(directory, root / "encoder")
    assert run("install", directory).exit_code == 0
    assert not (resources.installed_models() / "small" / "encoder").exists()
    assert load_checkpoint("small").config.encoder.directory == str(root / "encoder")


@pytest.fixture
def hub(root, monkeypatch):
    """Hugging Face's client without a network, and a folder that it takes for what it fetched before."""
    client = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(client.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(client.constants, "HF_HUB_CACHE", str(root / "cache"))
    return root / "cache"


def test_a_hugging_face_repository_is_installed_by_name(model, hub):
    place = hub / "models--someone--reach"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("c0ffee")
    (place / "snapshots" / "c0ffee").mkdir(parents=True)
    (place / "blobs").mkdir()
    for path in model.iterdir():
        shutil.copy(path, place / "blobs" / path.name)
        (place / "snapshots" / "c0ffee" / path.name).symlink_to(place / "blobs" / path.name)
    result = run("install", "someone/reach", "--name", "fetched")
    assert result.exit_code == 0, result.stderr
    shutil.rmtree(hub)
    assert load_checkpoint("fetched").model_id == load_checkpoint(model).model_id, "files, not links to the cache"


def test_a_failed_download_gives_a_one_line_error(hub):
    assert "model someone/none: expected to fetch it from Hugging Face, found" in refused("install", "someone/none")


def test_a_mistyped_path_is_not_fetched(root, monkeypatch):
    (root / "runs").mkdir()
    client = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(client, "snapshot_download", lambda *a, **k: pytest.fail("it asked the hub"))
    for name in ("runs/tran", "reach", "a/b/c", "./a/b", "/a/b"):
        line = refused("install", name)
        assert f"model {name}: expected a checkpoint's directory or a Hugging Face repository" in line


def test_a_single_file_is_refused(root):
    (root / "a.pt").write_bytes(b"PK\x03\x04")
    assert "found a file that may hold a pickle" in refused("install", "a.pt")


def test_files_that_change_during_the_copy_are_refused(model, monkeypatch):
    real = installing._copy_files

    def copy_and_change(source, target):
        real(source, target)
        (target / "model.safetensors").write_bytes(b"other")

    monkeypatch.setattr(installing, "_copy_files", copy_and_change)
    assert "its files changed while they were copied" in refused("install", model)
    assert installed() == []
