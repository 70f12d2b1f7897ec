"""Reading a bag for a model: topics, images, latents, situations; and writing the result bag.

bag_reader.py makes a Recording (recording.py) of one bag; situations.py finds the situations that metrics look at.
Start reading in bag_reader.py.
"""
