"""Token contexts and conversations: what every agent that writes completions shares."""
