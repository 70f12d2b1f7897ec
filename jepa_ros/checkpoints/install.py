"""Install checkpoints: copy them to the user's folder of models, where they are found by name."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

from jepa_ros.checkpoints.facts import CARD
from jepa_ros.errors import InputError
from jepa_ros.resources import config_path, describe_file, installed_models, models_in
from jepa_ros.world_model.checkpoint import verify
from jepa_ros.world_model.config import CONFIG, REFERENCES, WEIGHTS, ModelConfig, identify, read_config

NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
# All files of a checkpoint. Nothing else is fetched or copied, so no pickle ever comes along.
PATTERNS = ("*.json", "*.safetensors", CARD, "LICENSE*", *REFERENCES)


def install(source: str, name: str | None = None, force: bool = False) -> tuple[Path, bool]:
    """Load a checkpoint completely, then copy it whole or not at all.

    source: a directory, or the name of a Hugging Face repository (owner/name), which is fetched. name: of the installed
    model; default: the name in its configuration. force: replace another model of that name. Returns the model's
    directory, and False where the same model was already installed. Raises InputError where the checkpoint cannot be
    used, or the name is that of another model.
    """
    directory = _find_source(source)
    config = read_config(directory)
    name = config.name if name is None else name
    if not NAME.fullmatch(name):
        raise InputError(f"model name {name!r}: expected letters, digits, '_', '-' and '.', found others")
    if name in [path.name for path in models_in(config_path("models"))]:
        raise InputError(
            f"model name {name}: expected one that no shipped model has, found one that ships: give --name"
        )
    encoder = _find_encoder(config, directory)
    verify(directory)
    target, model_id = installed_models() / name, identify(directory)
    if target.exists():
        if _is_model(target, model_id):
            return target, False
        if not force:
            raise InputError(f"model {target}: expected no other model of that name, found one: give --name or --force")
    try:
        with _staging_folder(target) as staged:
            _copy_files(directory, staged)
            if encoder is not None:
                _copy_files(directory / encoder, staged / encoder)
            if not _is_model(staged, model_id):
                raise InputError(f"model {directory}: its files changed while they were copied")
            _replace(staged, target)
    except OSError as error:
        raise InputError(f"model {target}: cannot be written: {error}") from None
    return target, True


def _find_source(source: str) -> Path:
    """Return the directory of a checkpoint, fetched where `source` names a Hugging Face repository.

    A name whose owner is a folder here is a mistyped path: nothing is fetched. Raises InputError.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return path.resolve()
    expected = f"model {source}: expected a checkpoint's directory or a Hugging Face repository (owner/name)"
    if path.exists():
        raise InputError(f"{expected}, found {describe_file(path)}")
    if not REPOSITORY.fullmatch(source) or path.parent.is_dir():
        raise InputError(f"{expected}, found nothing of that name")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise InputError(f"model {source}: expected the package huggingface-hub to fetch it with, found none") from None
    try:
        return Path(snapshot_download(source, allow_patterns=list(PATTERNS)))
    except Exception as error:  # the hub's client raises many kinds: no network, no such repository, not allowed
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"model {source}: expected to fetch it from Hugging Face, found {reason}") from None


def _copy_files(source: Path, target: Path) -> None:
    """Copy the files of a checkpoint or a frozen encoder; links are followed."""
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted({p for pattern in PATTERNS for p in source.glob(pattern) if p.is_file()}):
        shutil.copyfile(path, target / path.name)


def _find_encoder(config: ModelConfig, directory: Path) -> str | None:
    """Return the folder of a frozen encoder inside the checkpoint, relative to it.

    None without such an encoder, or where an absolute path leads to it. Raises InputError.
    """
    if config.encoder.type != "transformers" or os.path.isabs(config.encoder.directory):
        return None
    inside = os.path.normpath(config.encoder.directory)
    if inside == "." or inside.split(os.sep)[0] == "..":
        raise InputError(
            f"model {directory / CONFIG}: encoder.directory: expected a folder in the checkpoint or an absolute path, "
            f"found {config.encoder.directory}"
        )
    return inside


def _is_model(target: Path, model_id: str) -> bool:
    return all((target / name).is_file() for name in (CONFIG, WEIGHTS)) and identify(target) == model_id


@contextmanager
def _staging_folder(target: Path):
    """Make a hidden folder beside the target, and remove it at the end unless it became the target."""
    target.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield staged
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _replace(staged: Path, target: Path) -> None:
    """Move the staged folder to its place; where that fails, put back the model that was there."""
    staged.chmod(0o755)
    if not target.exists():
        staged.rename(target)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
    try:
        before = target.rename(aside / target.name)
        try:
            staged.rename(target)
        except BaseException:
            before.rename(target)
            raise
    finally:
        if target.exists():  # else the only copy of the previous model is aside
            shutil.rmtree(aside, ignore_errors=True)
