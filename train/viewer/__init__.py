"""`paravt view`: a local web page that shows runs, their rollouts, and lets you play."""
