"""Task sets that make their own videos."""
