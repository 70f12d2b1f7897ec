"""Requests and messages that make sense to the nodes, for a fuzzer to begin with."""

from __future__ import annotations

import cv2
from jepa_msgs.action import ReachGoal
from jepa_msgs.msg import GoalTerm, SubGoal
from jepa_msgs.srv import EncodeGoal, Imagine, SetState
from rcl_interfaces.srv import SetParameters, SetParametersAtomically
from sensor_msgs.msg import CompressedImage

from jepa_ros.graph_clients.goal_client import image_term, pose_term
from jepa_ros.nodes.common.convert import byte_array, decode_image
from jepa_ros.robot.config import load_robot

ROBOT = load_robot("openarm")
WORDS = (ROBOT.base_frame, "planar_velocity", "openarm_reach", "/etc/passwd", "image", "jpeg", "png")
WORDS += ("rgb8", "rgb16", "mono16", "bayer_rggb8", "uyvy")


def place(xy) -> ReachGoal.Goal:
    """The goal of bringing the tool to xy (2,) m."""
    term = pose_term((*xy, ROBOT.action_space.height), ROBOT.base_frame)
    return ReachGoal.Goal(terms=[term], timeout=60.0)


def requests_that_make_sense(heard: dict[str, list], parameters: dict[str, dict]) -> dict[str, list]:
    """By the name of topic or service. heard: messages by topic; parameters: rcl messages by node and name."""
    image, joints, latent = (heard[topic][-1] for topic in ("/image", "/joint_states", "/latent"))
    png = cv2.imencode(".png", decode_image(image))[1]
    found = {
        "/wrist/image/compressed": [
            CompressedImage(header=image.header, format="rgb8; png compressed bgr8", data=byte_array(png))
        ],
        "/encode_goal": [EncodeGoal.Request(image=image)],
        "/imagine": [Imagine.Request(samples=2, horizon=2, actions=[0.1] * 32)],
        "/set_state": [SetState.Request(names=list(joints.name), positions=list(joints.position))],
        "/reach_goal/_action/send_goal": [
            ReachGoal.Impl.SendGoalService.Request(goal=goal) for goal in _goals(image, latent)
        ],
    }
    for node, held in parameters.items():
        sets = [[parameter] for parameter in held.values()]
        found[f"{node}/set_parameters"] = [SetParameters.Request(parameters=one) for one in sets]
        found[f"{node}/set_parameters_atomically"] = [SetParametersAtomically.Request(parameters=one) for one in sets]
    return found


def _goals(image, latent) -> list[ReachGoal.Goal]:
    pose = place((0.25, -0.30))
    known = GoalTerm(kind=GoalTerm.LATENT, latent=latent.data, model_id=latent.model_id)
    via = ReachGoal.Goal(terms=pose.terms, via=[SubGoal(terms=[known])])
    return [pose, via, ReachGoal.Goal(terms=[known]), ReachGoal.Goal(terms=[image_term(image)])]
