"""Clients of a running graph: goals, stop, status, and a listener to what the nodes publish.

Commands open a session (session.py) and use the clients in it; nothing here is imported by nodes. Start reading in
session.py, then goal_client.py.
"""
