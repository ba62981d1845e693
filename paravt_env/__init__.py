"""Long-video question answering as a Gymnasium environment; importing it registers the ids.

The simulation needs no model and no torch: task sets, video decoding, crops, the completion
protocol and the reward terms live here. Try it with `python -c "import gymnasium as gym;
gym.make('paravt_env:ParaVT-LongVideo-v0')"`.
"""

import envs_registry

__version__ = "0.1.0"

ENV_IDS: tuple[str, ...] = tuple(envs_registry.VARIANTS)
