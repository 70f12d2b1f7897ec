"""The simulated arm of the tests: made once a process, drawn small."""

from functools import cache

from jepa_ros.robot.config import load_robot


@cache
def robot():
    return load_robot("openarm")


@cache
def robot_3d():
    """Return the same arm with a tool that moves in space and turns."""
    return load_robot("openarm_3d")


@cache
def scene():
    from jepa_ros.sim.scene import Scene

    return Scene(width=64, height=48)


@cache
def space():
    from jepa_ros.sim.cell import make_action_space

    return make_action_space(robot(), scene().urdf)


@cache
def space_3d():
    from jepa_ros.sim.cell import make_action_space

    return make_action_space(robot_3d(), scene().urdf)


@cache
def cell():
    from jepa_ros.sim.cell import ArmCell

    return ArmCell(scene(), robot())


@cache
def cell_3d():
    from jepa_ros.sim.cell import ArmCell

    return ArmCell(scene(), robot_3d())


@cache
def limits():
    from jepa_ros.robot.motion.limits import JointLimits

    return JointLimits.from_robot(robot(), scene().urdf)
