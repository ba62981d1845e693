"""What runs agents at scale: recipes, rollouts, packing, learning, evaluation, reports."""
