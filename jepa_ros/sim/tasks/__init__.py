"""Tasks in the simulated cell: what is started from, what is asked for, and when it counts as reached.

Each task is one file that uses the scene and the cell. Start reading in reach.py.
"""
