"""The same training under several settings and seeds."""
