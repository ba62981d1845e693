"""What every room of the trainer may use: errors, files, the console."""
