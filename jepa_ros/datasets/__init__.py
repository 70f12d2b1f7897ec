"""Episodes for training: from bags of any robot (`data build`), from one bag directly, and from or to LeRobot datasets.

A bag goes through `signals` (read) and `matching` (cut, and put on the grid of the control rate). `build` writes
the result to disk (`store`); `recorded_episodes` gives training its episodes. Start with `mapping`.
"""
