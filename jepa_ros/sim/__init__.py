"""The simulated cell: MuJoCo scenes and tasks."""

from jepa_ros.sim import gl

gl.prepare()  # before any module of this package imports mujoco
