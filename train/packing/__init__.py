"""Packing: samples that share a prompt become one sequence."""
