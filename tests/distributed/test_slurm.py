"""The Slurm example: what its shell part starts, with stand-ins for Slurm's commands."""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "train.slurm"


@pytest.fixture
def started(tmp_path):
    """Runs the script with arguments; what `srun` was given, word by word."""
    commands = {"srun": 'printf "%s\\n" "$@"', "scontrol": "printf 'first\\nsecond\\n'"}
    for name, line in commands.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{line}\n")
        (tmp_path / name).chmod(0o755)
    slurm = {
        "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_NNODES": "2", "SLURM_JOB_ID": "7",
        "SLURM_CPUS_PER_TASK": "64", "PATH": f"{tmp_path}:{os.environ['PATH']}",
    }  # fmt: skip

    def run(*arguments):
        command = ["bash", str(SCRIPT), *arguments]
        return subprocess.run(
            command, env=slurm, capture_output=True, text=True, check=True
        ).stdout.splitlines()

    return run


@pytest.mark.parametrize(
    ("given", "trained"),
    [
        ([], ["paragrpo_8b"]),
        (["--run.resume=true"], ["paragrpo_8b", "--run.resume=true"]),
        (["gdpo_8b"], ["gdpo_8b"]),
        (["gdpo_8b", "--run.name=a b"], ["gdpo_8b", "--run.name=a b"]),
    ],
)
def test_without_a_recipe_the_job_is_that_of_paragrpo_8b(started, given, trained):
    words = started(*given)
    assert words[words.index("-m") :] == ["-m", "train", "train", *trained]


def test_the_processes_of_a_node_get_the_cpus_that_the_job_asks_for(started):
    words = started()
    assert words[:2] == ["--cpus-per-task=64", "torchrun"]
    assert "--rdzv-endpoint=first:29500" in words
