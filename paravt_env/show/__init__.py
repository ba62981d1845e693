"""What people look at: contact sheets, a screen, recordings.

Beside the journey; the environments and the recorders among the wrappers use it.
"""
