"""Run the node as `python -m jepa_ros.nodes.arm_gate`."""

import sys

from jepa_ros.nodes.arm_gate.node import main

if __name__ == "__main__":
    sys.exit(main())
