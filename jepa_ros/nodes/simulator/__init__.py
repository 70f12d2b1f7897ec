"""The node simulator: the MuJoCo cell behind the topics of a real arm and its camera.

node.py steps the scene of sim/ and its controller; publishers.py makes messages of their state. Start reading in
node.py.
"""
