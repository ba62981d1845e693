"""Requests to chat servers: one JSON exchange with a deadline, its repeats, and what they cost."""
