"""What an engine's sampler counts where several lanes share the engine."""

from types import SimpleNamespace

import numpy as np

from agents.base import AgentStats
from agents.vllm.agent import EngineSampler


class Engine:
    """Encodes images that it has not seen; `meanwhile` runs while it draws."""

    def __init__(self, encoded=0):
        self.stats, self.seen, self.encoded = AgentStats(), set(), encoded
        self.meanwhile = lambda: None

    def frames(self):
        return {"encoded": self.encoded, "held": len(self.seen)}

    def generate(self, prompts):
        now, self.meanwhile = self.meanwhile, lambda: None
        now()
        for image in (image for prompt in prompts for image in prompt.context.images):
            self.encoded += image.tobytes() not in self.seen
            self.seen.add(image.tobytes())
        return [["drawn"] * prompt.count for prompt in prompts]


def context(*shades):
    images = [np.full((2, 2, 3), shade, dtype=np.uint8) for shade in shades]
    return SimpleNamespace(ids=[*shades], images=images)


def test_lanes_that_draw_side_by_side_count_every_frame_once():
    engine = Engine(encoded=100)  # by whoever used it before
    one, other = EngineSampler(engine), EngineSampler(engine)
    engine.meanwhile = lambda: other.sample([context(5, 6, 7)], [4], 1.0)
    one.sample([context(1, 2), context(1, 2, 3)], [4, 4], 1.0)
    assert (engine.stats.frames_encoded, engine.stats.frames_reused) == (6, 2)
    later = EngineSampler(engine)
    later.sample([context(1, 9)], [4], 1.0)
    assert (engine.stats.frames_encoded, engine.stats.frames_reused) == (7, 3)
