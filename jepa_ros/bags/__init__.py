"""Bags: written and read with `rosbags`, so that neither ROS nor its daemons need to run."""
