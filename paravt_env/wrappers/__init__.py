"""Wrappers: other shapes of the environment, and records of what happens in it."""
