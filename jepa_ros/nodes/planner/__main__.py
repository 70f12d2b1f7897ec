"""Run the node as `python -m jepa_ros.nodes.planner`."""

import sys

from jepa_ros.nodes.common.process import run_node
from jepa_ros.nodes.planner.node import PlannerNode

if __name__ == "__main__":
    sys.exit(run_node(PlannerNode))
