"""Paths of the package's files in a source tree, an editable install or an ament install space.

ROS is not imported: the ament index is read as plain folders.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from jepa_ros.errors import InputError

PACKAGE = "jepa_ros"
MESSAGES = "jepa_msgs"


def share_directory() -> Path:
    """Return the folder that has `config/` and `launch/`.

    It is the repository root in a source tree or editable install, else `share/jepa_ros` of the install space. Raises
    InputError when neither exists.
    """
    root = _source_root()
    return root if root is not None else _ament_share(PACKAGE)


def config_path(*parts: str) -> Path:
    """Return `config/<parts>` of the package, as in `config_path("robots", "openarm.yaml")`; it may not exist."""
    return share_directory().joinpath("config", *parts)


def message_definitions() -> Path:
    """Return the folder with the `msg/`, `srv/` and `action/` definitions of jepa_msgs. Raises InputError."""
    root = _source_root()
    return root / "msg" if root is not None else _ament_share(MESSAGES)


def installed_models() -> Path:
    """Return the folder of the models that `jepa_ros models install` installs; it may not exist.

    It is `models` in $JEPA_ROS_HOME, else in $XDG_DATA_HOME/jepa_ros, else in ~/.local/share/jepa_ros.
    """
    if home := os.environ.get("JEPA_ROS_HOME"):
        return Path(home).expanduser() / "models"
    data = Path(os.environ.get("XDG_DATA_HOME") or "")
    # The XDG base directory specification ignores relative paths.
    return (data if data.is_absolute() else Path.home() / ".local" / "share") / PACKAGE / "models"


def resolve_model(name_or_path: str | os.PathLike) -> Path:
    """Return the directory of a checkpoint given by path or by name, in `config/models/` or else installed.

    Raises InputError that lists the known names.
    """
    wanted = Path(name_or_path).expanduser()
    if _looks_like_name(name_or_path):
        for models in (config_path("models"), installed_models()):
            if (models / wanted).is_dir():
                return models / wanted
    if os.fspath(name_or_path) and wanted.is_dir():
        return wanted.resolve()
    found = describe_file(wanted) if wanted.is_file() else "nothing of that name"
    known = ", ".join(list_models()) or "none installed"
    raise InputError(f"model '{name_or_path}': expected a checkpoint's directory or one of [{known}], found {found}")


def describe_file(path: Path) -> str:
    """Describe a file that was given in place of a checkpoint's directory, for error texts."""
    try:
        with path.open("rb") as file:
            start = file.read(2)
    except OSError:
        start = b""
    # torch.save writes a zip archive around a pickle; bare pickles begin with their protocol's opcode.
    if start == b"PK" or start[:1] == b"\x80":
        return "a file that may hold a pickle, which is never loaded; `jepa_ros import` reads those of known code bases"
    return "a file"


def resolve_robot(name_or_path: str | os.PathLike) -> Path:
    """Return the YAML file of a robot given by path or by name in `config/robots/`.

    Raises InputError that lists the known names.
    """
    robots = config_path("robots")
    wanted = Path(name_or_path).expanduser()
    if _looks_like_name(name_or_path) and (robots / f"{wanted}.yaml").is_file():
        return robots / f"{wanted}.yaml"
    if wanted.is_file():
        return wanted.resolve()
    found = "a directory" if wanted.is_dir() else "nothing of that name"
    known = ", ".join(list_robots()) or "none installed"
    raise InputError(f"robot '{name_or_path}': expected a YAML file or one of [{known}], found {found}")


def list_models() -> list[str]:
    """Return the names of the shipped and installed checkpoints, sorted."""
    return sorted({path.name for path in (*models_in(config_path("models")), *models_in(installed_models()))})


def models_in(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, sorted by name, without hidden ones, which are incomplete copies."""
    return sorted(p.parent for p in folder.glob("*/config.json") if not p.parent.name.startswith("."))


def list_robots() -> list[str]:
    """Return the names of the robots that ship with the package, sorted."""
    return sorted(path.stem for path in config_path("robots").glob("*.yaml"))


def _looks_like_name(value: str | os.PathLike) -> bool:
    text = os.fspath(value)
    return bool(text) and os.sep not in text and text not in (".", "..") and not text.startswith("~")


def _source_root() -> Path | None:
    """Return the repository root when this file is in a source tree, else None."""
    root = Path(__file__).resolve().parent.parent
    return root if (root / "msg" / "package.xml").is_file() and (root / "config").is_dir() else None


def _prefixes() -> Iterator[Path]:
    """Yield the install spaces to search: the sourced ones, then those of this file and of the interpreter."""
    yield from (Path(p) for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p)
    # <prefix>/lib/python3.N/site-packages/jepa_ros/resources.py
    yield from list(Path(__file__).resolve().parents)[4:5]
    yield Path(sys.prefix)


def _ament_share(package: str) -> Path:
    prefixes = list(_prefixes())
    for prefix in prefixes:
        if (prefix / "share" / package / "package.xml").is_file():
            return prefix / "share" / package
    searched = ", ".join(str(p) for p in prefixes)
    raise InputError(f"package '{package}': expected share/{package} in an ament prefix, found none in [{searched}]")
