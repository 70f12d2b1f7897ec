"""Named QoS profiles of all topics, for nodes, graph clients and tests. History is KEEP_LAST throughout.

A best-effort, volatile subscription matches publishers of any QoS. A reliable one does not match a best-effort
publisher, and a transient-local one does not match a volatile publisher.
"""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy


def make_qos(depth: int, reliable: bool = True, latched: bool = False) -> QoSProfile:
    """Return a profile. latched: transient local, so that late subscribers receive the last `depth` messages."""
    return QoSProfile(
        depth=depth,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


# Between the nodes
RELIABLE = make_qos(5)  # plans, latents, states
EXECUTED = make_qos(50)  # one value for each control tick; all of them count
IMAGES = make_qos(3)  # images and frames that nodes publish; a megabyte each
NEWEST = make_qos(1)  # only the newest counts: windows for controllers, markers, the clock
STREAM = make_qos(10)  # what is replayed, and what faults and tests publish at a high rate
LATCHED = make_qos(1, latched=True)  # robot_description, tf_static, e_stop, goal_image, what controllers publish
GATE_STATUS = make_qos(5, latched=True)  # a late subscriber receives the gate's present state
TF = make_qos(100)

# For subscriptions to topics that others publish
SENSOR = make_qos(5, reliable=False)  # joint states and images of any publisher
DIAGNOSTICS = make_qos(50)
CONTROLLER = make_qos(1, reliable=False)  # commands, as controllers of ros2_control receive them with Fast DDS

# For programs that listen to a running graph
LISTEN_ALL = make_qos(200)  # what must not be missed
LISTEN_SOME = make_qos(20, reliable=False)  # what may be missed, of any publisher
LISTEN_NEWEST = make_qos(1, reliable=False)
LISTEN_TF = make_qos(100, reliable=False)
LISTEN_TF_STATIC = make_qos(100, latched=True)
