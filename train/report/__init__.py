"""What a run left behind, as pages."""
