"""Findings: the result of one check, with a code for programs and a sentence with advice for people."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, IntEnum


class Level(IntEnum):
    """Severity; the worst one decides the exit code."""

    OK = 0
    """As it should be."""
    WARNING = 1
    """The arm would move, but worse than it could, or the check cannot tell."""
    ERROR = 2
    """The arm would not move, or would move on wrong data."""


class FindingCode(str, Enum):
    """Causes, as ``check.cause``; all checks also have ``check.ok``."""

    # Topics, namespaces and quality of service
    NAMESPACE_OTHER = "namespace.other"  # the robot's topics are in another namespace
    NAMESPACE_EMPTY = "namespace.empty"  # none of the robot's topics is published
    TOPIC_MISSING = "topic.missing"  # no publisher
    TOPIC_COMPRESSED = "topic.compressed_only"  # only compressed images are published
    TOPIC_SILENT = "silent.no_messages"  # a publisher, but no messages
    TOPIC_TYPE = "type.publisher"  # published with another message type
    QOS_PUBLISHER = "qos.publisher"  # the nodes of jepa_ros would not receive from this publisher
    QOS_STATIC_TF = "qos.static_tf"  # /tf_static is not transient local
    QOS_OTHER_NODE = "qos.other_node"  # another node does not receive from this publisher
    QOS_CONTROLLER = "qos.controller"  # the controller would not receive from arm_gate
    # Clocks, stamps and rates
    CLOCK_MISSING = "clock.missing"  # use_sim_time without /clock
    CLOCK_SIMULATED = "clock.simulated_stamps"  # stamps of simulated time without use_sim_time
    CLOCKS_DIFFER = "clocks.differ"  # messages are too old, or from the future
    STAMPS_ZERO = "stamps.zero"  # header.stamp is 0
    STAMPS_ORDER = "stamps.not_increasing"  # header.stamp does not increase
    RATE_TOO_LOW = "rate.too_low"  # the gate would stop
    RATE_LOW = "rate.low"  # lower than the model or a smooth motion needs
    # Model and robot
    MODEL_MISMATCH = "model.mismatch"  # joints or actions differ from the model's
    MODEL_UNTRAINED = "model.other_robot"  # not trained for this robot
    VIEWS_COUNT = "views.count"  # another number of cameras than the model's
    SEARCH_LIMITS = "search.missing_limits"  # the robot's action space has no limits to plan within
    # Joints and robot description
    DESCRIPTION_INVALID = "description.invalid"  # no URDF
    DESCRIPTION_JOINTS = "description.joints"  # joints missing: another arm's description
    DESCRIPTION_LINKS = "description.links"  # base or tool frame missing
    LIMITS_MISSING = "limits.missing"  # joints without limits
    LIMITS_INVALID = "limits.invalid"  # limits that the gate cannot use
    JOINTS_MISSING = "joints.missing"  # joints missing in joint_states
    JOINTS_DUPLICATE = "joints.duplicate"  # joints named twice in joint_states
    VALUES_POSITIONS = "values.positions"  # not one position for each name
    VELOCITIES_NOT_MEASURED = "velocities.not_measured"  # absent or NaN: taken from differences
    JOINTS_CONTRADICT = "joint_sources.contradict"  # two publishers with other positions each
    VALUES_NOT_FINITE = "values.not_finite"  # NaN or Inf
    UNITS_DEGREES = "units.degrees"  # positions look like degrees
    RANGE_OUTSIDE = "range.outside"  # a joint is outside its limits
    RANGE_NEAR_LIMIT = "range.near_limit"  # a joint is within the margin of a limit
    # Controllers
    PACKAGE_MISSING = "package.missing"  # arm_gate could not send this message type
    OTHER_COMMANDER = "rival.other_node"  # another node publishes commands
    SEVERAL_GATES = "rival.several_gates"  # more than one arm_gate
    CONTROLLER_INACTIVE = "controller.inactive"  # the controller manager reports another state than active
    CONTROLLER_UNLISTED = "controller.unlisted"  # the controller manager does not know the node that subscribes
    CONTROLLER_MISSING = "controller.missing"  # nothing subscribes to the commands
    CONTROLLER_TYPE = "type.controller"  # the controller subscribes with another message type
    CONTROLLER_SEVERAL = "listeners.several"  # more than one node follows the commands
    CONTROLLER_JOINTS = "controller_joints.differ"  # other joints, or another order
    COMMAND_MEANING = "command_meaning.other_interface"  # commands are not taken for positions
    COMMAND_MEANING_UNKNOWN = "command_meaning.unknown"  # the node that subscribes does not say what it takes them for
    INTERPOLATION_NONE = "interpolation.none"  # set-points jump from point to point
    SPEED_SCALED = "speed_scaling.not_one"  # the controller runs slower, or is paused
    # Questions without an answer: what they are about was not checked
    NO_ANSWER = "answer.none"  # a node or the controller manager did not answer
    UNKNOWN_NODE = "answer.unknown_node"  # a node without a name cannot be asked
    STATE_PACKAGE_MISSING = "answer.package_missing"  # messages to ask with are not installed here
    # Frames
    TF_MISSING = "tf.missing"  # no transforms
    TF_DISCONNECTED = "tf.disconnected"  # base and tool are not connected
    CAMERA_FRAME = "camera_frame.other"  # images have another frame_id
    CAMERA_FRAME_UNKNOWN = "camera_frame.unknown"  # no transform to the camera
    CAMERA_MOVED = "camera_pose.moved"  # the camera is not where the training camera was
    # Images
    CAMERAS_SEVERAL = "cameras.several"  # several publishers, sizes or encodings on one topic
    IMAGE_UNDECODABLE = "encoding.undecodable"
    IMAGE_FLAT = "dark.flat"  # dark, white or of one colour
    IMAGE_FROZEN = "frozen.repeated"  # the same pixels again and again
    INTRINSICS_MISSING = "intrinsics.missing"  # no camera_info, or an uncalibrated one
    INTRINSICS_SIZE = "intrinsics.size"  # camera_info of another image size
    INTRINSICS_VIEW = "intrinsics.view"  # another field of view than in training
    # The model's view
    UPSIDE_DOWN = "upside_down.turned"  # the image fits better turned by 180°
    LATENT_FAR = "latent.far"  # the latent is far from those of training
    TOOL_ELSEWHERE = "tool_seen.elsewhere"  # the model sees the tool elsewhere than the joints put it


@dataclass(frozen=True)
class Finding:
    """code: a FindingCode, or ``check.ok``. subject: what was checked. expected, advice: empty if all is well."""

    level: Level
    code: str
    subject: str
    expected: str
    found: str
    advice: str = ""

    @property
    def check(self) -> str:
        """Return the name of the check: the code's first part."""
        return self.code.partition(".")[0]

    def line(self) -> str:
        """Return one line of text."""
        name = self.level.name.lower()
        if self.level is Level.OK:
            return f"{name:<7} {self.subject}: {self.found}"
        return f"{name:<7} {self.subject}: expected {self.expected}, found {self.found}. {self.advice}"


def ok(check: str, subject: str, found: str) -> Finding:
    """Return a finding that all is well."""
    return Finding(Level.OK, f"{check}.ok", subject, "", found)


def warning(code: FindingCode, subject: str, expected: str, found: str, advice: str) -> Finding:
    """Return a finding that does not keep the arm from moving."""
    return Finding(Level.WARNING, code.value, subject, expected, found, advice)


def error(code: FindingCode, subject: str, expected: str, found: str, advice: str) -> Finding:
    """Return a finding that must be resolved first."""
    return Finding(Level.ERROR, code.value, subject, expected, found, advice)


def join_names(names: Iterable, most: int = 6) -> str:
    """Return the first few names as text."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more if names else "none"
