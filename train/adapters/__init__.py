"""Adapters: this environment inside other people's trainers and servers, one file a peer."""
