"""Collision checks of joint paths: self-collision, keep-out boxes, workspace.

`clearance.py` is the entry; it asks `self_collision.py`, which builds simple shapes (`shapes.py`) from the URDF.
"""
