"""Memory and seconds of a run, from shapes alone."""
