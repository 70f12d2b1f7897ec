"""Node arm_gate: the only node that commands the arm and its gripper.

Plans and joint states go from `node.py` into the pure gate (`jepa_ros.robot.gate`), whose windows go out through
`controllers.py`, one class per kind of controller. Start reading in `node.py`.
"""
