"""The frame store: every frame is decoded once, whoever asks for it."""
