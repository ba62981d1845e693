"""The learner: a credited batch in, one policy update out."""
