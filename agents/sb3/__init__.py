"""Policies of Stable-Baselines3, which act on arrays."""
