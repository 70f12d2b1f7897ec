"""`jepa_ros demo`: the whole graph in simulation, one goal image after the other, with a report and a video.

run.py starts the nodes and sends the goals; listener.py records what the graph publishes; record.py turns that into a
summary, and report.py into a page. Start reading in run.py.
"""
