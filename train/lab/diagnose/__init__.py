"""What each reward term does to the advantages and to the gradient."""
