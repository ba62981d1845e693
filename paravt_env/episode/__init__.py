"""An episode: overview, actions, crops, and the state machine that joins them."""
