"""`jepa_ros evaluate bag`: a model judged on recordings, in process, without ROS and the same on every run."""
