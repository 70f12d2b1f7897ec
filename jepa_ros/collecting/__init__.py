"""`jepa_ros collect`: recordings of random play and teleoperation, from simulation or from a running graph.

Start with `simulated.collect_simulated`, which writes a bag, and `live.collect_live`, which moves the arm of a running
graph while the recorder writes the bag. `live` makes a `session`, which plans with `plan_driver` and hands plans to the
gate through `graph_client`; only these two know ROS.
"""
