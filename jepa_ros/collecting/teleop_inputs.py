"""What a person says to a live arm: with a game pad, or by velocities."""

from __future__ import annotations

from collections.abc import Callable

from geometry_msgs.msg import TwistStamped
from sensor_msgs.msg import Joy

from jepa_ros.collecting.graph_client import CollectGraph
from jepa_ros.collecting.teleoperation import GamePad, Steering
from jepa_ros.nodes.common.convert import to_seconds
from jepa_ros.nodes.common.qos import SENSOR


class Commands:
    """Hears `topic`: sensor_msgs/Joy where there is a pad, else geometry_msgs/TwistStamped in `frame`, the base frame.

    max_speed: m/s of a component of 1. on_problem(text): a message could not be taken. on_end: the end button.
    """

    def __init__(
        self,
        graph: CollectGraph,
        steering: Steering,
        pad: GamePad | None,
        topic: str,
        max_speed: float,
        frame: str,
        on_problem: Callable[[str], None],
        on_end: Callable[[], None],
    ) -> None:
        self._graph, self._steering, self._pad = graph, steering, pad
        self._topic, self._max_speed, self._frame = topic, max_speed, frame
        self._on_problem, self._on_end = on_problem, on_end
        kind, heard = (Joy, self._on_joy) if pad else (TwistStamped, self._on_twist)
        graph.node.create_subscription(kind, topic, heard, SENSOR)

    def _on_joy(self, message: Joy) -> None:
        if self._pad.ends(message.buttons):
            self._on_end()
        velocity = self._pad.velocity(message.axes, message.buttons)
        if len(velocity) < 2:
            self._on_problem(f"{self._topic}: expected more axes, found {len(message.axes)}")
        else:
            self._take(velocity, message)

    def _on_twist(self, message: TwistStamped) -> None:
        found = message.header.frame_id
        if found not in ("", self._frame):
            self._on_problem(f"{self._topic}: expected velocities in the frame {self._frame}, found {found}")
        else:
            linear = message.twist.linear
            self._take((linear.x / self._max_speed, linear.y / self._max_speed), message)

    def _take(self, velocity: tuple[float, ...], message: Joy | TwistStamped) -> None:
        self._steering.command(velocity, to_seconds(message.header.stamp), self._graph.now())
        if self._steering.problem:
            self._on_problem(f"{self._topic}: {self._steering.problem}")
