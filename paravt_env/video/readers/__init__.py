"""Readers: one file, its frames by time; which libraries can do it, in which process."""
