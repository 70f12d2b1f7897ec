"""Run the node as `python -m jepa_ros.nodes.simulator`."""

import sys

from jepa_ros.nodes.simulator.node import main

if __name__ == "__main__":
    sys.exit(main())
