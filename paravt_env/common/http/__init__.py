"""One chat completion over HTTP, with a deadline for the whole exchange."""
