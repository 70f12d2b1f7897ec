"""Common code of all nodes: lifecycle, parameters, diagnostics, QoS profiles, executor, worker thread and process.

A node derives from lifecycle.JepaNode and is run by process.py; nothing here imports a node. Start reading in
lifecycle.py.
"""
