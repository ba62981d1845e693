"""Plays one episode on a server of this environment, with OpenEnv's own client.

paravt serve --openenv paragrpo_mini &
python examples/openenv_client.py http://127.0.0.1:8000    (pip install 'paravt[openenv]')
"""

import sys

from openenv import GenericEnvClient


def main(address: str) -> float:
    """Look at two places, answer A, and return the reward."""
    with GenericEnvClient(base_url=address).sync() as env:
        seen = env.reset(seed=7).observation
        print(seen["question"], f"\n{len(seen['frames'])} overview frames")
        episode = {"episode_id": seen["episode_id"]}
        middle = seen["video"]["duration"] / 2
        crops = [[middle - 10, middle], [middle, middle + 10]]  # seconds, both in one step
        seen = env.step({**episode, "crops": crops}).observation
        print([(crop["status"], crop["frames"]) for crop in seen["metadata"]["crops"]])
        result = env.step({**episode, "answer": "A"})
        print(result.reward, result.observation["metadata"]["reward_terms"])
        return float(result.reward)


if __name__ == "__main__":
    main(sys.argv[1])
