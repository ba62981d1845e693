"""A policy behind an OpenAI-style chat server."""
