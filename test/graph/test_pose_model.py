"""V-JEPA 2-AC in the graph: all nodes run a tiny model of poses, on an arm that the test plays."""

import numpy as np
import pytest
import yaml
from jepa_msgs.msg import Action, LatentState, Plan, Surprise
from jepa_msgs.srv import Imagine
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory as JointTrajectoryMessage

from helpers.untrained_model import fresh_model
from jepa_ros.graph_clients.goal_client import GoalClient
from jepa_ros.nodes.common.convert import image_message, points_of, to_stamp, trajectory_message
from jepa_ros.nodes.common.qos import LATCHED
from jepa_ros.robot.motion.kinematics import Kinematics
from jepa_ros.robot.motion.trajectory import JointTrajectory
from jepa_ros.sim.controller import TrajectoryController

pytest.importorskip("transformers")
pytestmark = pytest.mark.graph

NAME, SIZE, WIDTH, TICK = "poses", 16, 64, 0.25
JOINTS, START, WAY = ("a", "b", "c"), np.array([0.1, 0.4, -0.3]), np.array([0.3, -0.2, 0.4])
PICTURE = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
LIMIT = {"max_velocity": 2.0, "has_acceleration_limits": True, "max_acceleration": 20.0}
LIMIT |= {"has_jerk_limits": True, "max_jerk": 1000.0}
ROBOT = {
    "name": "poser",
    "joints": list(JOINTS),
    "base_frame": "base",
    "tool_frame": "tool",
    "controllers": [
        {"name": "arm", "type": "joint_trajectory_controller/JointTrajectoryController", "joints": list(JOINTS)}
    ],
    "action_space": {
        "type": "pose_delta",
        "max_translation": 0.05,
        "max_rotation": 0.2,
        "max_acceleration": 0.8,
        "workspace": [[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]],
    },
    "joint_limits": dict.fromkeys(JOINTS, LIMIT),
    "position_margin": 0.0,
    "home": dict(zip(JOINTS, (0.0, -0.5, 1.0), strict=True)),
    "gripper": ["finger"],
    "camera": {"frame_id": "eye", "topic": "image"},
}


def urdf():
    """Turns, shoulder and elbow: the tool can be brought anywhere, and is turned as that leaves it."""
    chain = [("a", "base", "l1", "0 0 1"), ("b", "l1", "l2", "0 1 0"), ("c", "l2", "l3", "0 1 0")]
    chain.append(("finger", "tool", "tip", "0 0 1"))
    mass = '<inertial><mass value="1"/><inertia ixx="1" iyy="1" izz="1" ixy="0" ixz="0" iyz="0"/></inertial>'
    parts = [f'<link name="{name}">{mass}</link>' for name in ("base", "l1", "l2", "l3", "tool", "tip")]
    parts.append(
        '<joint name="end" type="fixed"><parent link="l3"/><child link="tool"/><origin xyz="0.2 0 0"/></joint>'
    )
    for name, parent, child, axis in chain:
        parts.append(
            f'<joint name="{name}" type="revolute"><parent link="{parent}"/><child link="{child}"/>'
            f'<origin xyz="0.2 0 0.1"/><axis xyz="{axis}"/><limit lower="-2" upper="2" velocity="2" effort="1"/>'
            "</joint>"
        )
    return f'<robot name="poser">{"".join(parts)}</robot>'


def pose_model(directory):
    """A checkpoint of vjepa2_ac with 2 x 2 patches of random weights; the directory."""
    import torch
    import transformers

    from jepa_ros.world_model.frozen_encoder import weights_digest

    torch.manual_seed(0)
    sizes = {"crop_size": SIZE, "patch_size": 8, "hidden_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 1}
    encoder = transformers.VJEPA2Model(transformers.VJEPA2Config(**sizes, pred_num_hidden_layers=0))
    encoder.save_pretrained(directory / "encoder")
    fields = ("x", "y", "z", "roll", "pitch", "yaw", "opening")
    return fresh_model(
        directory,
        family="vjepa2_ac",
        encoder={"type": "transformers", "sha256": weights_digest(directory / "encoder")},
        predictor={"type": "block_causal", "width": WIDTH, "depth": 1, "heads": 1},
        latent_shape=(4, WIDTH),
        policy=None,
        preprocessing={"size": SIZE},
        control_rate=1 / TICK,
        block=1,
        action={"name": "pose_delta", "dimension": 7},
        proprioception={"kind": "tool_pose", "gripper": fields, "mean": (0.0,) * 7, "std": (1.0,) * 7},
        robots=(),
    )


def motion():
    t = np.arange(0.0, 2.025, 0.05)
    u = t / t[-1]
    f, fd, fdd = 10 * u**3 - 15 * u**4 + 6 * u**5, 30 * u**2 - 60 * u**3 + 30 * u**4, 60 * u - 180 * u**2 + 120 * u**3
    return JointTrajectory(
        JOINTS, t, START + np.outer(f, WAY), np.outer(fd, WAY) / t[-1], np.outer(fdd, WAY) / t[-1] ** 2
    )


class Bench:
    """Both nodes in a namespace of their own; camera, arm and planner are played here. Frames are 0.3 s old."""

    def __init__(self, start, client, folder):
        self.client, self.start = client, start
        self.model, self.robot = str(pose_model(folder / "model")), folder / "poser.yaml"
        self.robot.write_text(yaml.safe_dump(ROBOT))
        self.process = self.node("world_model", frame_timeout=2.0)
        node, topic = client.node, lambda name: f"/{NAME}/{name}"
        self.latents = client.collect(LatentState, topic("latent"))
        self.surprises = client.collect(Surprise, topic("surprise"))
        self.executed = client.collect(Action, topic("executed"), 50)
        self.description = node.create_publisher(String, topic("robot_description"), LATCHED)
        self.joints = node.create_publisher(JointState, topic("joint_states"), 10)
        self.frames = node.create_publisher(Image, topic("frame"), 10)
        self.plans = node.create_publisher(Plan, topic("plan"), 10)
        self.actions = node.create_publisher(Action, topic("executed"), 10)
        self.controller = TrajectoryController(JOINTS)
        self.controller.hold(START)
        self.measured = START
        node.create_subscription(JointTrajectoryMessage, topic("arm/joint_trajectory"), self.on_window, 10)
        self.timers = [node.create_timer(0.02, self.publish_joints), node.create_timer(0.05, self.publish_frame)]

    def node(self, name, **parameters):
        model = {} if name == "arm_gate" else {"model": self.model}
        return self.start(f"jepa_ros.nodes.{name}", {"robot": self.robot, **model, **parameters}, {"__ns": f"/{NAME}"})

    def now(self):
        return self.client.node.get_clock().now().nanoseconds * 1e-9

    def publish_joints(self):
        now = self.now()
        # Without velocities: a pose needs none, and the gate does without.
        self.measured = self.controller.update(now, self.measured)
        message = JointState(name=["finger", *JOINTS], position=[1.0, *self.measured])
        message.header.stamp = to_stamp(round(now * 1e9))
        self.joints.publish(message)

    def publish_frame(self):
        self.frames.publish(image_message(PICTURE, to_stamp(round((self.now() - 0.3) * 1e9)), "eye"))

    def on_window(self, message):
        try:
            self.controller.accept(points_of(message), self.now())
        except ValueError as error:
            assert "in the past" in str(error)  # this process slept, on a machine that is too busy

    def follow(self):
        """Sends a plan until the gate reports what it did of one to its end; the reports of that motion."""
        number = 0

        def sent():
            nonlocal number
            if any(a.plan_id for a in self.executed):
                return True
            number += 1
            now = self.now()
            plan = Plan(plan_id=number, trajectory=trajectory_message(motion()))
            plan.header.stamp = to_stamp(round((now + 0.15) * 1e9))
            plan.source_stamp = to_stamp(round(now * 1e9))
            plan.valid_until = to_stamp(round((now + 5.0) * 1e9))
            self.plans.publish(plan)
            self.client.spin(0.5)

        self.client.wait_for(sent, "a plan that the gate follows", 60.0)
        self.client.wait_for(lambda: not self.executed[-1].plan_id, "the plan's end")
        return list(self.executed)

    def close(self):
        for timer in self.timers:
            self.client.node.destroy_timer(timer)


@pytest.fixture(scope="module")
def bench(start, client, tmp_path_factory):
    made = Bench(start, client, tmp_path_factory.mktemp("pose"))
    yield made
    made.close()


def test_latents_are_published_once_the_robot_description_is_received(bench):
    bench.process.says("waiting: no robot_description received yet", 120.0)
    assert not bench.latents
    bench.description.publish(String(data=urdf()))
    bench.client.wait_for(lambda: bench.latents, "a latent", 120.0)
    latent = bench.latents[-1]
    assert list(latent.shape) == [4, WIDTH] and np.isfinite(latent.data).all()
    assert latent.header.frame_id == "eye"


def test_the_imagine_service_rolls_out_pose_deltas(bench):
    bench.client.wait_for(lambda: bench.latents, "a latent", 120.0)
    actions = np.random.default_rng(1).uniform(-0.05, 0.05, (3, 2, 7))
    request = Imagine.Request(samples=3, horizon=2, actions=actions.ravel().tolist())
    answers = []

    def answered():
        answers.append(bench.client.call(Imagine, f"/{NAME}/imagine", request, again=5.0))
        return answers[-1].success

    bench.client.wait_for(answered, "an imagination with joint states")
    latents = np.array(answers[-1].latents).reshape(answers[-1].shape)
    assert latents.shape == (3, 4, WIDTH) and np.isfinite(latents).all()
    assert np.abs(latents[0] - latents[1]).max() > 1e-4, "actions matter"


def test_surprise_is_computed_from_executed_pose_deltas(bench):
    assert not bench.surprises, "nothing was executed yet"
    bench.node("arm_gate", control_period=TICK, resume_after=0.2, latent_timeout=2.0, latent_stamp_timeout=3.0,
               joint_timeout=1.0, joint_stamp_timeout=1.0, frozen_timeout=5.0, source_timeout=5.0,
               planner_timeout=5.0)  # fmt: skip
    done = bench.follow()
    assert {(a.action_space, len(a.values), a.period, a.header.frame_id) for a in done} == {
        ("pose_delta", 7, TICK, "base")
    }
    kinematics = Kinematics(urdf(), JOINTS, "tool", "base")
    whole = kinematics.forward(START + WAY)[0] - kinematics.forward(START)[0]
    np.testing.assert_allclose(np.sum([a.values for a in done], axis=0)[:3], whole, atol=1e-4)
    assert np.abs([a.values[3:6] for a in done]).max() > 0.02 and not np.any([a.values[6] for a in done])
    seen = len(bench.surprises)
    bench.client.wait_for(lambda: len(bench.surprises) > seen, "surprise")
    assert all(np.isfinite(s.error) and s.error > 0 for s in bench.surprises)


def test_executed_actions_of_another_action_space_are_ignored(bench):
    bench.client.wait_for(lambda: bench.actions.get_subscription_count() == 2, "the node's subscription and ours")
    bench.actions.publish(Action(action_space="planar_velocity", values=[0.0, 0.0], period=0.1))
    expected = "executed: expected pose_delta of 7 numbers a tick of 0.25 s, found planar_velocity of 2 a tick of 0.1 s"
    bench.client.wait_for(lambda: expected in bench.process.output, "a warning")


def test_the_planner_moves_the_arm_by_pose_deltas_towards_a_goal_image(bench):
    plans = bench.client.collect(Plan, f"/{NAME}/plan", 50)
    planner = bench.node("planner", deadline=1.0, latent_timeout=2.0, period=TICK, lead=0.3, budget=0.2, horizon=4,
                         resume_after=0.2, metric="l1")  # fmt: skip
    goals = GoalClient(bench.client.node, f"/{NAME}/reach_goal")
    bench.description.publish(String(data=urdf()))
    bench.client.wait_for(goals.is_ready, "the planner", 120.0)
    bench.executed.clear()
    goal = goals.send_image(PICTURE[::-1].copy(), tolerance=1e-9, timeout=60.0)
    moved = lambda: [a for a in bench.executed if a.plan_id and np.abs(a.values[:3]).max() > 1e-3]  # noqa: E731
    bench.client.wait_for(lambda: len(moved()) >= 5 or goal.outcome, "motion by plans of the planner", 90.0)
    assert goal.outcome is None, goal.outcome
    assert all(len(p.action_blocks) == 4 * 7 and not np.any(np.reshape(p.action_blocks, (4, 7))[:, 3:]) for p in plans)
    goal.cancel()
    bench.client.wait_for(lambda: goal.outcome, "the goal's end")
    assert goal.outcome.status == "canceled" and "Traceback" not in planner.output
    goals.close()


def test_a_planar_robot_and_a_file_without_a_workspace_are_refused(bench):
    other = bench.start("jepa_ros.nodes.world_model", {"model": bench.model}, {"__ns": "/planar"})
    bare = bench.robot.with_name("bare.yaml")
    space = {"type": "pose_delta", "max_translation": 0.05, "max_rotation": 0.2}
    bare.write_text(yaml.safe_dump(ROBOT | {"action_space": space}))
    planner = bench.node("planner", robot=bare)
    other.says("expected a robot with action space pose_delta, found planar_velocity on openarm", 120.0)
    bench.description.publish(String(data=urdf()))
    planner.says("action_space: expected max_acceleration and workspace for planning, found none", 120.0)
    for process in (other, planner):
        assert "Traceback" not in process.output
