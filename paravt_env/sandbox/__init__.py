"""Code that a model wrote, in a process that can reach nothing: limits, isolation, warm workers.

Under `episode/`, which runs the code of a turn here. `pool.py` hands out workers, `process.py`
talks to one, `isolation.py` says how it is locked in, and `guest.py` is what runs inside. What this
protects from, and what not: docs/sandbox.md. Tests: `pytest tests/sandbox`.
"""
