"""Motion of an arm: joint limits, paths and trajectories, kinematics, and the action spaces of models.

`path.py` and `trajectory.py` are the representations, `limits.py` checks them. `motion_space.py` is what planners
search; `action_space.py` adds the meaning of a model's actions. Start reading there.
"""
