"""Output paths of commands: tried for writing before work begins, left as they were if input is refused, and results
that are kept if the report fails."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from jepa_ros.errors import InputError


def prepare_out(path: str | os.PathLike, option: str = "--out") -> Path:
    """Check that files can be written into the directory `path`, which may be missing, and return it as a Path.

    Call it after every other option has been checked and before work begins. It leaves nothing behind, so that a
    command that is refused later can be repeated with the same directory; the directory is made with the first file.

    Raises:
        InputError: it is a file, or cannot be created or written to; the text names `option` and `path`.
    """
    path = Path(path)
    made: list[Path] = []  # innermost first
    try:
        made += (directory for directory in (path, *path.parents) if not directory.exists())
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{option} {path}: cannot be written to ({reason}); give a directory that can") from None
    finally:
        for directory in made:
            with suppress(OSError):  # not created, or in use by another process
                directory.rmdir()
    return path


def prepare_file(path: str | os.PathLike, option: str = "--out") -> Path:
    """Check that the file `path` can be written, or replaced, and return it as a Path; otherwise as `prepare_out`."""
    path = Path(path)
    if os.path.isdir(path):
        raise InputError(f"{option} {path}: is a directory; give the name of a file")
    prepare_out(path.parent, option)
    try:
        os.lstat(path.with_name(f".{os.getpid()}.{path.name}"))  # the name that atomic_path uses; may be too long
    except FileNotFoundError:
        pass
    except OSError as error:
        raise InputError(f"{option} {path}: cannot be written to ({error.strerror}); give another name") from None
    return path


@contextmanager
def removed_if_refused(file: Path, results: str) -> Iterator[None]:
    """Remove `file` and the directories that were created if the block raises InputError before there are results.

    file: written in the block when a run begins. results: pattern of files beside it, which are never removed.
    """
    folder = file.parent
    made = [directory for directory in (folder, *folder.parents) if not directory.exists()]
    try:
        yield
    except InputError:
        if not any(folder.glob(results)):
            file.unlink(missing_ok=True)
            inside = sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True)
            for directory in (*inside, *made):
                with suppress(OSError):  # not empty
                    directory.rmdir()
        raise


@contextmanager
def after_summary(summary: Path) -> Iterator[None]:
    """Raise InputError, which says that the results are in `summary`, if the block cannot write report or plots."""
    try:
        yield
    except Exception as error:  # whatever a plot library raises must not hide where the results are
        if os.environ.get("JEPA_ROS_TRACEBACK"):
            raise
        hint = "; JEPA_ROS_TRACEBACK=1 shows where"
        reason = (isinstance(error, OSError) and error.strerror) or f"{type(error).__name__}: {error}{hint}"
        raise InputError(f"the report could not be written ({reason}); the results are in {summary}") from error
