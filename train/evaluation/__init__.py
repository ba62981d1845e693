"""Evaluation: tasks played, rows counted, reports compared."""
