"""The training loop: collect, credit, update, log; and all that surrounds a step."""
