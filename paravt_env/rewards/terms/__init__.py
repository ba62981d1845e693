"""The reward terms: pure functions of a transcript, a file each."""
