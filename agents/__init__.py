"""Policies: anything that acts in the environment. Agents need nothing from the trainer."""
