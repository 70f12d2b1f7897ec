"""Self-collision: shapes read from a description, the checked pairs, and their distances."""

import re
import struct
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import sim_arm
from jepa_ros.errors import InputError
from jepa_ros.robot.collision.self_collision import SelfCollision
from jepa_ros.robot.collision.shapes import enclosing_capsule, link_shapes
from jepa_ros.sim.scene import mujoco  # once OpenGL is chosen

ARM = tuple(sim_arm.robot().joints)
HOME = np.array([sim_arm.robot().home[j] for j in ARM])
LEFT_HOME = {"openarm_left_joint4": 1.571}
HANDS = ("ee_base_link", "ee_inner_finger", "ee_outer_finger")
FATTER = 0.05  # m that the capsules of two links can stand out over the links themselves


@cache
def collision():
    return SelfCollision(sim_arm.scene().urdf, ARM, home=HOME)


def random_q(rng):
    kinematics = sim_arm.space().kinematics
    return rng.uniform(kinematics.lower, kinematics.upper)


# ---------------------------------------------------------------------------------------- the simulated robot


def test_home_is_collision_free():
    assert collision().distance(HOME) > 0.015


def test_the_whole_workspace_is_collision_free():
    space, rng = sim_arm.space(), np.random.default_rng(0)
    corners = space.workspace
    inside = rng.dirichlet(np.ones(len(corners)), 40) @ corners
    assert collision().distances(np.array([space.inverse_kinematics(xy) for xy in [*corners, *inside]])).min() > 0.01


def test_colliding_hands_are_detected():
    both, distances = SelfCollision(sim_arm.scene().urdf, ARM, home=HOME), []
    for turn in np.linspace(0.0, 1.0, 11):
        both.set_joints(LEFT_HOME | {"openarm_left_joint3": turn})
        distances.append(both.find_closest_pair(HOME + np.array([0, 0, -turn, 0, 0, 0, 0])))
        if distances[-1][0] < 0:
            break
    (start, *_), (end, a, b) = distances[0], distances[-1]
    assert start > 0.015 and -0.05 < end < 0
    assert a in {f"openarm_left_{hand}" for hand in HANDS} and b in {f"openarm_right_{hand}" for hand in HANDS}


def test_every_contact_in_mujoco_is_a_collision():
    """The other way round, the capsules are wider than the links by no more than they must be. The pedestal aside:
    MuJoCo fills the room around its pole."""
    scene, own, rng = sim_arm.scene(), collision(), np.random.default_rng(1)
    pairs = [pair for pair in own.pairs if "world" not in pair]
    without = SelfCollision(
        scene.urdf, ARM, home=HOME, ignore=[(a, b) for a, b in own.pairs if "world" in (a, b)], others=LEFT_HOME
    )
    touched = 0
    for _ in range(25):
        # Towards the other arm and the body, where something is to be seen.
        q = np.clip(HOME + rng.normal(size=7) * [0.3, 0.1, 0.8, 0.8, 0.8, 0.5, 0.8], *_limits())
        scene.reset(dict(zip(ARM, q, strict=True)) | LEFT_HOME)
        real, ours = min(_mujoco_distance(scene, *pair) for pair in pairs), without.distance(q)
        assert ours <= real + 1e-3
        assert ours >= real - FATTER
        touched += ours < 0
    assert 0 < touched < 25


def _limits():
    kinematics = sim_arm.space().kinematics
    return kinematics.lower, kinematics.upper


def _mujoco_distance(scene, a, b):
    """m between the collision geoms of two bodies; those farther than 0.3 m count as that far."""
    model, line = scene.model, np.zeros(6)
    geoms = [[g for g in range(model.ngeom) if model.body(model.geom_bodyid[g]).name == name] for name in (a, b)]
    return min(mujoco.mj_geomDistance(model, scene.data, g, h, 0.3, line) for g in geoms[0] for h in geoms[1])


def test_every_body_of_the_simulated_robot_has_a_collision_shape():
    shapes, guessed = link_shapes(sim_arm.scene().urdf)
    model = sim_arm.scene().model
    bodies = {model.body(i).name for i in range(model.nbody)}
    assert {shape.link for shape in shapes} == {n for n in bodies if n.startswith("openarm_")} | {"world"}
    assert guessed == ()


def test_the_boxes_of_the_pedestal_enclose_its_mesh():
    model = sim_arm.scene().model
    geom = model.geom("openarm_body_link0_collision").id
    mesh, rotation = model.geom_dataid[geom], np.zeros(9)
    mujoco.mju_quat2Mat(rotation, model.geom_quat[geom])
    vertices = model.mesh_vert[model.mesh_vertadr[mesh] :][: model.mesh_vertnum[mesh]]
    vertices = vertices @ rotation.reshape(3, 3).T + model.geom_pos[geom]
    boxes = [shape for shape in link_shapes(sim_arm.scene().urdf)[0] if shape.link == "world"]
    beyond = [(np.abs(vertices - box.position) - box.sides / 2).max(axis=1) for box in boxes]
    assert np.min(beyond, axis=0).max() < 1e-6
    pole = min(boxes, key=lambda box: box.sides[0])
    assert pole.sides[0] < 0.08 and pole.sides[2] > 0.3, "the room around the pole is free"


def test_adjacent_links_are_not_checked():
    own = collision()
    chain = ["openarm_right_base_link", *(f"openarm_right_link{i}" for i in range(1, 7)), "openarm_right_ee_base_link"]
    for a, b in zip(chain[:-1], chain[1:], strict=True):
        assert (a, b) not in own.pairs and own.left_out[a, b] == "adjacent"
    # The fingers hang on the wrist by the hand and its joint.
    assert own.left_out["openarm_right_link6", "openarm_right_ee_inner_finger"] == "adjacent"


def test_pairs_that_the_arm_does_not_move_are_not_checked():
    assert all(any("right" in link for link in pair) for pair in collision().pairs)
    assert ("openarm_left_ee_base_link", "openarm_right_ee_base_link") in collision().pairs
    assert ("world", "openarm_right_ee_base_link") in collision().pairs


def test_the_other_arm_is_at_the_positions_that_were_set():
    own = SelfCollision(sim_arm.scene().urdf, ARM, home=HOME)
    free = own.distance(HOME)
    own.set_joints({"openarm_left_joint4": 1.571, "openarm_left_joint3": 1.3})
    there, a, b = own.find_closest_pair(HOME)
    own.set_joints({"openarm_left_joint4": 0.0, "openarm_left_joint3": 0.0})
    assert there < 0 and a.startswith("openarm_left") and b.startswith("openarm_right")
    assert own.distance(HOME) == pytest.approx(free)


def test_obstacles_are_checked_against_the_whole_arm():
    tool = sim_arm.space().kinematics.forward(HOME)[0]
    ahead = ("wall", tool + [0.25, -0.3, -0.3], tool + [0.3, 0.3, 0.3])
    own = SelfCollision(sim_arm.scene().urdf, ARM, home=HOME, obstacles=[ahead])
    assert (
        own.find_closest_pair(HOME)
        == own.find_closest_pair(HOME, obstacles=False)
        == collision().find_closest_pair(HOME)
    )
    # Further forward by less than the wall is away from the tool: the fingers are there before it.
    target, rotation = sim_arm.space().kinematics.forward(HOME)
    q, _ = sim_arm.space().kinematics.inverse(target + [0.08, -0.03, 0], rotation, HOME, HOME)
    distance, a, b = own.find_closest_pair(q)
    assert distance < 0 and a == "wall" and "finger" in b
    assert own.find_closest_pair(q, obstacles=False) == collision().find_closest_pair(q)


def test_obstacles_are_in_the_base_frame():
    q, low, high = HOME, np.array([0.5, -0.3, 0.3]), np.array([0.6, 0.1, 0.6])
    moved = np.array(sim_arm.scene().model.body("openarm_right_base_link").pos)
    there = SelfCollision(sim_arm.scene().urdf, ARM, home=HOME, obstacles=[("wall", low, high)])
    base = {"base_frame": "openarm_right_base_link", "obstacles": [("wall", low - moved, high - moved)]}
    same = SelfCollision(sim_arm.scene().urdf, ARM, home=HOME, **base)
    assert [o.distance(q + 0.4 * np.eye(7)[3]) for o in (there, same)] == pytest.approx(
        [there.distance(q + 0.4 * np.eye(7)[3])] * 2, abs=1e-4
    )
    with pytest.raises(InputError, match="expected a link 'nowhere'"):
        SelfCollision(sim_arm.scene().urdf, ARM, home=HOME, obstacles=[("wall", low, high)], base_frame="nowhere")


def test_an_ignored_pair_is_not_checked():
    first = collision().find_closest_pair(HOME)[1:]
    without = SelfCollision(sim_arm.scene().urdf, ARM, home=HOME, ignore=[first[::-1]])
    assert first not in without.pairs and without.left_out[first] == "ignored"
    assert without.distance(HOME) > collision().distance(HOME)


def test_joints_are_in_the_given_order():
    rng = np.random.default_rng(2)
    order, q = rng.permutation(7), random_q(rng)
    shuffled = SelfCollision(sim_arm.scene().urdf, [ARM[i] for i in order], home=HOME[order])
    assert shuffled.distance(q[order]) == pytest.approx(collision().distance(q))
    np.testing.assert_array_equal(shuffled.lever, collision().lever[order])


def test_a_batch_equals_single_distances():
    rng = np.random.default_rng(3)
    q = np.array([random_q(rng) for _ in range(6)])
    many = collision().distances(q)
    assert many.shape == (6,)
    np.testing.assert_array_equal(many, [collision().distance(row) for row in q])
    assert collision().find_closest_pair(q[0])[0] == many[0]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_distances_change_no_faster_than_the_levers(seed):
    rng = np.random.default_rng(seed)
    q = random_q(rng)
    step = rng.normal(size=7) * 10 ** rng.uniform(-3, -1)
    # Where shapes overlap deeply the depth of boxes may jump from one way out to another.
    before, after = collision().distances(np.stack([q, q + step]))
    if min(before, after) > 0:
        assert abs(after - before) <= np.abs(step) @ collision().lever + 1e-6


def test_missing_shapes_are_guessed_and_listed():
    bare = re.sub(r"<collision.*?</collision>", "", sim_arm.scene().urdf, flags=re.S)
    guess = SelfCollision(bare, ARM, home=HOME)
    assert {f"openarm_right_link{i}" for i in range(1, 7)} <= set(guess.guessed)
    assert not {"world", "openarm_right_ee_control_point"} & set(guess.guessed), "frames have no shape"
    guess.set_joints({"openarm_left_joint4": 1.571, "openarm_left_joint3": 1.3})
    assert guess.distance(HOME) < 0.02


# ---------------------------------------------------------------------------------------- descriptions by hand

POST = '<sphere radius="0.1"/>'
LIMITS = '<limit lower="-4" upper="4" effort="1" velocity="1"/>'
INERTIA = '<inertial><mass value="1"/><inertia ixx="1" iyy="1" izz="1" ixy="0" ixz="0" iyz="0"/></inertial>'


def robot(post=POST, bar='<cylinder radius="0.02" length="0.2"/>'):
    """A bar from 0.1 to 0.3 m that turns about z at the origin, and a post at x = 0.5 m."""
    return f"""<robot name="r"><link name="base"/>
      <link name="post">{INERTIA}<collision><geometry>{post}</geometry></collision></link>
      <joint name="fixed" type="fixed"><parent link="base"/><child link="post"/><origin xyz="0.5 0 0"/></joint>
      <link name="bar">
        <collision><origin xyz="0.2 0 0" rpy="0 1.5707963267949 0"/><geometry>{bar}</geometry></collision>
      </link>
      <joint name="turn" type="revolute"><parent link="base"/><child link="bar"/><axis xyz="0 0 1"/>{LIMITS}</joint>
      </robot>"""


@pytest.mark.parametrize(
    "post, ahead, aside",
    [
        (POST, 0.2 - 0.12, np.hypot(0.5, 0.1) - 0.12),
        ('<box size="0.2 0.2 0.2"/>', 0.2 - 0.12, 0.4 - 0.02),
        ('<cylinder radius="0.1" length="1"/>', 0.2 - 0.12, np.hypot(0.5, 0.1) - 0.12),
    ],
)
def test_distances_equal_those_of_the_primitives(post, ahead, aside):
    own = SelfCollision(robot(post), ["turn"])
    assert own.pairs == (("post", "bar"),) and own.guessed == ()
    assert own.find_closest_pair(np.zeros(1)) == (pytest.approx(ahead, abs=1e-6), "post", "bar")
    assert own.distance(np.array([np.pi / 2])) == pytest.approx(aside, abs=1e-6)


def test_a_cylinder_is_replaced_by_its_enclosing_capsule():
    long = SelfCollision(robot(bar='<cylinder radius="0.02" length="0.4"/>'), ["turn"], home=[1.5])
    assert long.distance(np.zeros(1)) == pytest.approx(0.1 - 0.12, abs=1e-6), "the caps stand out of its ends"


def test_inflation_reduces_the_distances():
    fat = SelfCollision(robot(), ["turn"], inflate=0.01)
    assert fat.distance(np.zeros(1)) == pytest.approx(0.08 - 0.02, abs=1e-6)


@pytest.mark.parametrize("uri", ["package://arm/cube.stl", "file://{share}/arm/cube.stl"])
def test_a_mesh_of_an_installed_package_is_enclosed(tmp_path, monkeypatch, uri):
    corners = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)]) * 0.2 - 0.1
    faces = [(0, 1, 3), (0, 3, 2), (4, 6, 7), (4, 7, 5), (0, 4, 5), (0, 5, 1), (2, 3, 7), (2, 7, 6), (0, 2, 6)]
    faces += [(0, 6, 4), (1, 5, 7), (1, 7, 3)]
    data = b"".join(struct.pack("<12fH", 0, 0, 0, *corners[list(face)].ravel(), 0) for face in faces)
    share = tmp_path / "share"
    (share / "arm").mkdir(parents=True)
    (share / "arm" / "cube.stl").write_bytes(bytes(80) + struct.pack("<I", len(faces)) + data)
    description = robot(f'<mesh filename="{uri.format(share=share)}" scale="1 1 2"/>')
    assert SelfCollision(description, ["turn"]).guessed == ("post",), "it belongs to no installed package"
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    mesh = SelfCollision(description, ["turn"])
    assert mesh.guessed == ()
    assert 0.08 - 0.06 < mesh.distance(np.zeros(1)) <= 0.08 + 1e-6


@pytest.mark.parametrize("name", ["file:///no/such.stl", "package://no_such/post.stl", "http://host/post.stl", ""])
def test_an_unreadable_mesh_is_replaced_by_a_guessed_shape(name):
    own = SelfCollision(robot(f'<mesh filename="{name}"/>'), ["turn"])
    assert own.guessed == ("post",)
    assert own.distance(np.zeros(1)) == pytest.approx(0.2 - 0.05 - 0.02, abs=1e-6)


def test_without_pairs_the_distance_is_infinite():
    own = SelfCollision(robot(), ["turn"], ignore=[("bar", "post")])
    assert own.pairs == () and own.find_closest_pair(np.zeros(1)) == (np.inf, "", "")
    assert own.distance(np.zeros(1)) == np.inf


BARE = re.sub("<(inertial|collision).*?</\\1>", "", robot(), flags=re.S)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: SelfCollision("<robot", ARM), "robot_description: expected a URDF"),
        (lambda: SelfCollision(robot(), ["elbow"]), "robot_description: expected the joint 'elbow', found .'turn'."),
        (lambda: SelfCollision(robot('<sphere radius="wide"/>'), ["turn"]), "link post: expected a radius .* 'wide'"),
        (lambda: SelfCollision(robot('<box size="1 2"/>'), ["turn"]), "link post: expected three numbers for size"),
        (lambda: SelfCollision(robot(), ["turn"], ignore=[("bar", "foo")]), "ignore: expected links .* found 'foo'"),
        (lambda: SelfCollision(robot(), ["turn"], ignore=["bar"]), "ignore: expected pairs of links, found 'bar'"),
        (lambda: SelfCollision(robot(), ["turn"], others={"turn": 0.0}), "'turn' belongs to the arm"),
        (lambda: SelfCollision(robot(), ["turn"], home=[0, 0]), r"expected shape \(1,\), found \(2,\)"),
        (lambda: SelfCollision(BARE, ["turn"]), "expected links with collision geometry or mass, found none"),
        (lambda: collision().distance(np.zeros(6)), r"expected shape \(7,\), found \(6,\)"),
        (lambda: enclosing_capsule(np.zeros((0, 3))), "expected points"),
        (lambda: enclosing_capsule(np.full((4, 3), np.nan)), "expected finite points"),
    ],
)
def test_invalid_input_is_one_clear_line(call, words, capfd):
    with pytest.raises(InputError, match=words) as error:
        call()
    assert "\n" not in str(error.value)


# ---------------------------------------------------------------------------------------- capsules


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60))
def test_a_capsule_encloses_its_points(seed, count):
    rng = np.random.default_rng(seed)
    points = rng.normal(size=3) + rng.normal(size=(count, 3)) * rng.uniform(0, 1, 3)
    capsule = enclosing_capsule(points)
    along = capsule.end - capsule.start
    share = np.clip((points - capsule.start) @ along / max(along @ along, 1e-12), 0, 1)
    beside = np.linalg.norm(points - capsule.start - share[:, None] * along, axis=1)
    assert beside.max() <= capsule.radius * (1 + 1e-6) + 1e-9


def test_a_capsule_lies_along_a_slanted_rod():
    axis = np.array([1.0, 2.0, 2.0]) / 3
    rod = np.linspace(-0.5, 0.5, 50)[:, None] * axis
    ring = np.array([[2, 1, -2], [-2, 2, -1], [-2, -1, 2], [2, -2, 1]]) / 3 * 0.05
    capsule = enclosing_capsule((rod[:, None] + ring).reshape(-1, 3))
    found = (capsule.end - capsule.start) / np.linalg.norm(capsule.end - capsule.start)
    assert abs(found @ axis) > 0.999 and capsule.radius < 0.055
