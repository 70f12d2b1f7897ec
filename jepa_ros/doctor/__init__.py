"""What a running robot, its camera and a model look like from outside, and what of it does not fit. No ROS in here."""
