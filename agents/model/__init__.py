"""The policy as a checkpoint: model, features, sampling, and the agent that plays with them."""
