"""Starting the graph: nodes.py lists what each bring-up consists of.

up.py starts it as a process group, launch_description.py by launch (with gazebo.py's programs), environment.py sets the
environment of both, and running_graphs.py lets other commands join it. Start reading in nodes.py.
"""
