"""Grafana Mimir's system, in Python, on Ray."""

__version__ = "0.1.0"
