"""The node planner: latents and a goal in, plans for the gate out.

node.py is the ROS side; it asks controller.py, which builds the solver and the model of planning/ in a worker thread.
Start reading in node.py.
"""
