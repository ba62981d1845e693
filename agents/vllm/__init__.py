"""The policy through vLLM: an engine in this process, or a server."""
