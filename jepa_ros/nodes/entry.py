"""Where the nodes' executables begin: signals first, then the slow imports."""

import os
import signal
import sys
from importlib import import_module
from pathlib import Path


def main() -> int:
    """Runs the node that the executable is named after. A stop that comes while it still imports ends it at once."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(0))  # nothing moves yet; run() takes the signals over
    return import_module(f"jepa_ros.nodes.{Path(sys.argv[0]).name}").main()
