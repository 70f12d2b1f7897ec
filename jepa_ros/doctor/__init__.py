"""`jepa_ros doctor`: checks a running robot, its camera and a model against each other before anything moves.

`graph_listener.py` observes the graph and asks its nodes (`inquiry.py`; the only files with ROS), and returns plain
values (`observations.py`). `examine.py` calls the checks in `model.py`, `topics.py`, `arm.py`, `controllers.py`,
`answers.py` and `camera.py`, which yield findings (`finding.py`).
Start reading in `examine.py`.
"""
