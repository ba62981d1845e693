"""TRL's GRPOTrainer on long-video questions, with this environment's crops and rewards.

python examples/trl_grpo.py Qwen/Qwen3-VL-2B-Instruct    (pip install 'paravt[train,trl]')
"""

import sys
from typing import Any

from trl import GRPOConfig, GRPOTrainer

from train.adapters.trl import TRLGame


def main(model: str, folder: str = "runs/trl", tasks: str = "synthetic", **training: Any) -> None:
    """Train `model`; `training` are further arguments of `GRPOConfig`."""
    game = TRLGame(tasks, frame_size=(160, 288), frames_per_crop=8, max_turns=2, max_crops=3)
    defaults = {
        "num_generations": 8,
        "per_device_train_batch_size": 8,
        "max_completion_length": 4096,  # two turns of three crops of eight pictures, and the words
        "learning_rate": 1e-6,
        "max_steps": 200,
    }
    trainer = GRPOTrainer(
        model,
        args=GRPOConfig(output_dir=folder, **game.config, **{**defaults, **training}),
        train_dataset=game.dataset(seed=0),
        environment_factory=game.environment,
        reward_funcs=game.reward_funcs,
    )
    trainer.train()
    trainer.save_model(folder)
    game.close()


if __name__ == "__main__":
    main(sys.argv[1])
