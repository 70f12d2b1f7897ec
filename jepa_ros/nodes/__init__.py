"""The lifecycle nodes, thin shells around plain functions and classes. Each runs as `python -m jepa_ros.nodes.NAME`.

common/ is what all of them share. Start reading in common/lifecycle.py, then camera.py, the shortest node.
"""
