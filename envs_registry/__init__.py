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
    "ParaVT-LongVideo-Frames-v0": {"evidence": "frames"},
    "ParaVT-LongVideo-Text-v0": {},
    "ParaVT-LongVideo-Density-v0": {"crop_density": True, "crop_quota": 128},
    "ParaVT-LongVideo-Code-v0": {
        "tool": "code", "max_crops": 1, "max_turns": 5, "frame_budget": 0, "evidence": "frames",
    },
    "ParaVT-Image-v0": {
        "tasks": "zoom", "tool": "code", "max_crops": 1, "max_turns": 5, "frame_budget": 8,
        "evidence": "frames",
    },
}

# id -> entry points of the single and the vector environment, where they are not the usual ones
ENTRY_POINTS: dict[str, tuple[str, str]] = {
    "ParaVT-LongVideo-Text-v0": (
        "paravt_env.wrappers.text:LongVideoTextEnv",
        "paravt_env.wrappers.text:make_text_vector",
    ),
}


def register_all() -> None:
    """Register every variant with Gymnasium; a second call changes nothing."""
    for env_id, kwargs in VARIANTS.items():
        if env_id not in gym.registry:
            single, vector = ENTRY_POINTS.get(env_id, (ENTRY_POINT, VECTOR_ENTRY_POINT))
            gym.register(
                env_id,
                entry_point=single,
                vector_entry_point=vector,
                kwargs=dict(kwargs),
                # Gymnasium's checker is broken for good by a first reset that raises, as one of a
                # video that cannot be read does; `gym.make(..., disable_env_checker=False)` has it.
                disable_env_checker=True,
            )


register_all()
