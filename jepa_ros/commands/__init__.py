"""The sub-commands of `jepa_ros`, by what they are for; jepa_ros.cli puts them together."""
