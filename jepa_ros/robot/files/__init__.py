"""Robot YAML files: `draft.py` writes a first one from a URDF, `check.py` lists the problems of one.

Both use `kinematic_tree.py`. `gripper.py` and `open_marks.py` are checks of their own; bring-ups and the gate use the
latter, too. `yaml_edit.py` changes one key of a file and keeps the rest.
"""
