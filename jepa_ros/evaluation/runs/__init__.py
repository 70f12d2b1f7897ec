"""Finished evaluations set side by side."""
