"""Output paths of commands, tried for writing before work begins."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
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
    made: list[Path] = []
    try:
        missing = path
        while not missing.exists():
            made.append(missing)
            missing = missing.parent
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{option} {path}: cannot be written to ({reason}); give a directory that can") from None
    finally:
        for directory in made:  # innermost first
            with suppress(OSError):  # not created, or in use by another process
                directory.rmdir()
    return path


def prepare_file(path: str | os.PathLike, option: str = "--out") -> Path:
    """Check that the file `path` can be written, or replaced, and return it as a Path; otherwise as `prepare_out`."""
    path = Path(path)
    if os.path.isdir(path):
        raise InputError(f"{option} {path}: is a directory; give the name of a file")
    prepare_out(path.parent, option)
    return path
