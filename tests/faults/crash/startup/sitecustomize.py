"""Loaded by every Python process whose PYTHONPATH has this folder: the crash tests' service processes, and no others."""

from tests.faults.crash import points

points.install()
