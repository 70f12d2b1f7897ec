"""Episodes for training: from bags of any robot (`data build`), from one bag directly, and from or to LeRobot datasets.

A bag goes through `signals` (read), `segments` (cut), `matching` (put on the grid of the control rate) and
`image_decoding`. `build` writes the result to disk by way of `shard` and `store`; `splits` gives training its episodes.
Start with `mapping`.
"""
