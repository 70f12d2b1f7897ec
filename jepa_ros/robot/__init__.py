"""Robots without ROS and without torch: description, configuration, motion, collision and the motion gate.

`config.py` (the robot's YAML) and `urdf.py` (its description) are the inputs. `gate/` uses `motion/` and `collision/`;
`files/` checks and drafts robot YAML files. Start reading in `gate/gate.py`.
"""
