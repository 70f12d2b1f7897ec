"""Run the node as `python -m jepa_ros.nodes.planner`."""

import sys

from jepa_ros.nodes.planner.node import main

if __name__ == "__main__":
    sys.exit(main())
