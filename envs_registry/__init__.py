"""Environment ids and their entry points, as strings: importing this loads no simulation.

`import paravt_env` imports it, so `gym.make("ParaVT-LongVideo-v0")` works after that import and
`gym.make("paravt_env:ParaVT-LongVideo-v0")` works without one. A new variant is one entry of
`VARIANTS`. List the registered ids with `python -c "import envs_registry;
print(envs_registry.VARIANTS)"`.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym

ENTRY_POINT = "paravt_env.env:LongVideoEnv"
VECTOR_ENTRY_POINT = "paravt_env.vector:LongVideoVectorEnv"

# id -> keyword arguments (plain data, so that `spec.to_json()` works)
VARIANTS: dict[str, dict[str, Any]] = {
    "ParaVT-LongVideo-v0": {},
    "ParaVT-LongVideo-Sequential-v0": {"max_crops": 1, "max_turns": 5},
    "ParaVT-LongVideo-OnDemand-v0": {"frame_budget": 0},
}


def register_all() -> None:
    """Register every variant with Gymnasium; a second call changes nothing."""
    for env_id, kwargs in VARIANTS.items():
        if env_id not in gym.registry:
            gym.register(
                env_id,
                entry_point=ENTRY_POINT,
                vector_entry_point=VECTOR_ENTRY_POINT,
                kwargs=dict(kwargs),
            )


register_all()
