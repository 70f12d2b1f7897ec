"""Runs of the command line in a process of their own."""

import subprocess
import sys

from helpers.nodes import ROOT, environment


def command(*arguments):
    """(exit code, lines on stderr) of `jepa_ros ...` in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "jepa_ros.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(),
        timeout=300,
    )
    return done.returncode, done.stderr.splitlines()


def refused(*arguments) -> str:
    """The one line with which a command exits with 2."""
    code, lines = command(*arguments)
    assert code == 2 and len(lines) == 1, (code, lines)
    return lines[0]
