"""Rollout workers: who plays for the trainer, how far ahead, with which weights."""
