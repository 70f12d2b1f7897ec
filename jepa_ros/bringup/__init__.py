"""Clients of the graph that commands need. Besides `jepa_ros.nodes`, the only place where rclpy is imported."""
