"""Task sets that make their own videos: a drawn world (`synthetic`), recorded games (`atari`)."""
