"""What people look at: contact sheets, a window, recordings."""
