"""The algorithm as pure functions: advantages, credit, losses, and their settings."""
