"""Servers that are compared: each a process of its own with the same weights and precision."""
