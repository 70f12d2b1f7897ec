"""The smallest node, for tests: publishes which hooks ran, and may need a message to configure."""

import sys

from rclpy.duration import Duration
from std_msgs.msg import String

from jepa_ros.errors import InputError
from jepa_ros.nodes.common.diagnostics import OK, Status
from jepa_ros.nodes.common.lifecycle import JepaNode, NotReady
from jepa_ros.nodes.common.parameters import Parameter
from jepa_ros.nodes.common.process import run_node
from jepa_ros.nodes.common.qos import LATCHED
from jepa_ros.nodes.common.topics import LatestMessage

PARAMETERS = (
    Parameter("rate", 10.0, "How often.", unit="Hz", range=(0.1, 100.0)),
    Parameter("upper", 5.0, "Never below rate / 10."),
    Parameter("size", 64, "Side.", unit="pixels", range=(8, 512), at_configure=True),
    Parameter("mode", "raw", "How.", choices=("raw", "cooked")),
    Parameter("needs", False, "Wait for a message on `needed`."),
    Parameter("refuse", False, "Refuse to configure."),
)


class PlainNode(JepaNode):
    def __init__(self):
        super().__init__("plain_node", PARAMETERS)
        self.needed = LatestMessage(self, String, "needed")
        self.hooks = self.create_publisher(String, "hooks", LATCHED)
        self.seen = []

    def tell(self, what):
        self.seen.append(what)
        self.hooks.publish(String(data=" ".join(self.seen)))

    def validate(self, values):
        if values.upper < values.rate / 10:
            lowest = f"rate / 10 = {values.rate / 10:g}"
            raise InputError(f"parameter 'upper': expected at least {lowest}, found {values.upper:g}")

    def configure(self):
        if self.p.needs and self.needed.message is None:
            raise NotReady("no message on needed yet")
        if self.p.refuse:
            raise InputError("told to refuse: expected refuse false, found true")
        self.create_publisher(String, "made_by_configure", 1)
        self.tell("configure")

    def activate(self):
        self.tell("activate")

    def deactivate(self):
        self.tell("deactivate")

    def cleanup(self):
        self.tell("cleanup")
        self.hooks.wait_for_all_acked(Duration(seconds=2))  # the process may end next, and the message with it

    def shutdown_motion(self):
        self.tell("shutdown_motion")

    def diagnose(self):
        return [Status("figures", OK, "fine", {"rate": self.p.rate})]


if __name__ == "__main__":
    sys.exit(run_node(PlainNode))
