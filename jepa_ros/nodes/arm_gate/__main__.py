"""Run the node as `python -m jepa_ros.nodes.arm_gate`."""

import sys

from jepa_ros.nodes.arm_gate.node import ArmGate
from jepa_ros.nodes.common.process import run_node
from jepa_ros.nodes.common.shared_memory import use_sockets_only

if __name__ == "__main__":
    sys.setswitchinterval(0.0005)  # s; so that checking a plan delays the ticks less
    use_sockets_only()
    sys.exit(run_node(ArmGate))
