"""The frame store: every frame is decoded once."""
