"""Entry point of the nodes' executables: handle signals before the slow imports."""

import os
import runpy
import signal
import sys
from pathlib import Path


def main() -> None:
    """Run the node that the executable is named after. A stop signal during its imports ends the process at once."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(0))  # nothing moves yet; run_node replaces these handlers
    runpy.run_module(f"jepa_ros.nodes.{Path(sys.argv[0]).name}", run_name="__main__")
