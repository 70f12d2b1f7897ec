"""Robot YAML files: `draft.py` writes a first one from a URDF, `check.py` lists the problems of one.

Both use `kinematic_tree.py`. `yaml_edit.py` changes one key of a file and keeps the rest.
"""
