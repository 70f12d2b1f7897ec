"""Where the package's own files are: from a source tree, an editable install, or an ament install space.

Nothing here imports ROS: the ament index is read as the plain folders that it is.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from jepa_ros.errors import InputError

PACKAGE = "jepa_ros"
MESSAGES = "jepa_msgs"


def share_directory() -> Path:
    """Folder that holds `config/` and `launch/`.

    The repository root when this module is run from a source tree (also by an editable install), else
    `share/jepa_ros` of the install space. Raises InputError when neither is there, which means a broken installation.
    """
    root = _source_root()
    return root if root is not None else _ament_share(PACKAGE)


def config_path(*parts: str) -> Path:
    """`config/<parts>` of the package, e.g. `config_path("robots", "openarm.yaml")`. It is not checked to exist."""
    return share_directory().joinpath("config", *parts)


def launch_path(*parts: str) -> Path:
    """`launch/<parts>` of the package. It is not checked to exist."""
    return share_directory().joinpath("launch", *parts)


def message_definitions() -> Path:
    """Folder with the `msg/`, `srv/` and `action/` definitions of jepa_msgs.

    Raises InputError when the messages are neither in the source tree nor installed.
    """
    root = _source_root()
    return root / "msg" if root is not None else _ament_share(MESSAGES)


def installed_models() -> Path:
    """Folder of the models that `jepa_ros models install` copied here; it need not exist.

    `models` in $JEPA_ROS_HOME, else in jepa_ros of $XDG_DATA_HOME, else in ~/.local/share/jepa_ros.
    """
    if home := os.environ.get("JEPA_ROS_HOME"):
        return Path(home).expanduser() / "models"
    data = Path(os.environ.get("XDG_DATA_HOME") or "")
    # The XDG base directory specification tells to ignore paths that are not absolute.
    return (data if data.is_absolute() else Path.home() / ".local" / "share") / PACKAGE / "models"


def resolve_model(name_or_path: str | os.PathLike) -> Path:
    """Directory of a checkpoint, given as a path or as a name: of one that ships in `config/models/`, else of one that
    was installed.

    Raises InputError that names what exists when it is neither a directory nor a known name.
    """
    wanted = Path(name_or_path).expanduser()
    if _looks_like_name(name_or_path):
        for models in (config_path("models"), installed_models()):
            if (models / wanted).is_dir():
                return models / wanted
    if os.fspath(name_or_path) and wanted.is_dir():
        return wanted.resolve()
    found = what_file(wanted) if wanted.is_file() else "nothing of that name"
    known = _listed(list_models())
    raise InputError(f"model '{name_or_path}': expected a checkpoint's directory or one of [{known}], found {found}")


def what_file(path: Path) -> str:
    """What a file is that was given where a checkpoint's directory is expected, for messages."""
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
    """YAML file of a robot, given as a path or as the name of one in `config/robots/`.

    Raises InputError that names what exists when it is neither a file nor a known name.
    """
    robots = config_path("robots")
    wanted = Path(name_or_path).expanduser()
    if _looks_like_name(name_or_path) and (robots / f"{wanted}.yaml").is_file():
        return robots / f"{wanted}.yaml"
    if wanted.is_file():
        return wanted.resolve()
    found = "a directory" if wanted.is_dir() else "nothing of that name"
    known = _listed(list_robots())
    raise InputError(f"robot '{name_or_path}': expected a YAML file or one of [{known}], found {found}")


def list_models() -> list[str]:
    """Names of the checkpoints that ship with the package and of those that were installed, sorted."""
    return sorted({path.name for path in (*models_in(config_path("models")), *models_in(installed_models()))})


def models_in(folder: Path) -> list[Path]:
    """Checkpoints in a folder, sorted by name; hidden ones are copies that are not finished."""
    return sorted(p.parent for p in folder.glob("*/config.json") if not p.parent.name.startswith("."))


def list_robots() -> list[str]:
    """Names of the robots that ship with the package, sorted."""
    return sorted(path.stem for path in config_path("robots").glob("*.yaml"))


def _looks_like_name(value: str | os.PathLike) -> bool:
    text = os.fspath(value)
    return bool(text) and os.sep not in text and text not in (".", "..") and not text.startswith("~")


def _listed(names: list[str]) -> str:
    return ", ".join(names) if names else "none installed"


def _source_root() -> Path | None:
    """Repository root when this file lies in a source tree, else None."""
    root = Path(__file__).resolve().parent.parent
    return root if (root / "msg" / "package.xml").is_file() and (root / "config").is_dir() else None


def _prefixes() -> Iterator[Path]:
    """Install spaces to search: the sourced ones first, then the one that this file or interpreter lies in."""
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
