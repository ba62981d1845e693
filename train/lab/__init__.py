"""What researchers ask beside training. No other room but the commands imports it."""
