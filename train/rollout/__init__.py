"""Rollouts: played, selected, and the tasks that are worth playing."""
