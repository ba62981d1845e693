"""An episode: its overview, actions that are read, crops that are decoded, the state machine.

Between a task set and the rewards, for one row and for many: `simulation.py` joins the rest. Run
the tests with `pytest tests/env`.
"""
