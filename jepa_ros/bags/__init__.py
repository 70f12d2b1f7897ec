"""rosbag2 recordings, read and written without ROS: open, recover what is readable of a damaged one, write.

Start with `reader.open_bag`. `cameras` reads images, `writer` records the simulated arm or a running graph. Everything
that makes episodes out of bags is in `jepa_ros.datasets`, which calls this package.
"""
