"""Helper modules of the tests: sample data, small models, simulated peers and running graphs.

Tests import them as `from helpers import ...` (`pythonpath = test` in setup.cfg). Nothing here is collected as a test.
"""
