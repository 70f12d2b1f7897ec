"""Joint-embedding predictive world models: encoders, predictors, methods against collapse, checkpoints. Without ROS.

protocol.py has the interface, checkpoint.py loads a model of any family in config.py. Start reading in protocol.py.
"""
