"""Task sets that others have published, a file each."""
