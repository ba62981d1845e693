"""ParaVT's environment under the id that verifiers looks for: `paravt-longvideo`.

eval paravt-longvideo --env.agent.harness.id null -m MODEL
"""

from train.adapters.verifiers import LongVideoTaskset

__all__ = ["LongVideoTaskset"]
