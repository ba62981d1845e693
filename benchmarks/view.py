"""How long the pages of `paravt view` take for a long run, and what memory they need.

Writes a run of 1,000 steps with 64 kept rollouts each (77 metrics a step; every step has the same
rollouts, of 400 sampled tokens) and 20 runs of 1,000 steps without rollouts. Then it serves them in
a process of its own and asks for pages, each for the first time and again. Run it with `python
benchmarks/view.py > benchmarks/results/view.txt`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from paravt_env.common.progress import counted
from train.common.rollout_file import FOLDER, INDEX, index_line, step_path, write_step

TOKENS, METRICS, OTHERS = 400, 77, 20
OUTCOMES = ("answered", "unanswered")


def rollout(number: int, rng: random.Random) -> dict[str, Any]:
    """A kept rollout of the usual shape."""
    sampled = range(TOKENS)
    talk = {
        "kind": "main",
        "version": 0,
        "prompt": "What happens? " * 40,
        "pieces": [f" w{rng.randrange(500)}" for _ in sampled],
        "roles": [1 + i % 5 for i in sampled],
        "logprobs": [round(-rng.expovariate(2.0), 4) for _ in sampled],
        "advantages": [round(rng.gauss(0, 1), 4) for _ in sampled],
        "ratios": [round(1 + rng.gauss(0, 0.02), 4) for _ in sampled],
    }
    crop = {"window": [10.0, 20.0], "status": "ok", "message": "", "frames": 8, "reading": None}
    return {
        "group": number // 8,
        "member": number % 8,
        "task_id": f"train-{number // 8:05d}",
        "video": "/absent.mp4",
        "family": ("order", "count", "goal")[number // 8 % 3],
        "category": "",
        "frame_budget": (4, 8, 16)[number // 8 % 3],
        "duration": 900.0,
        "question": "What happens?",
        "gold": "B",
        "evidence": [[12.0, 18.0]],
        "correct": float(rng.random() < 0.4),
        "reward": round(rng.random() * 2, 4),
        "terms": {"answer": 1.0},
        "compliant": rng.random() < 0.98,
        "calls": rng.randrange(3),
        "executed": 0,
        "forced": False,
        "stop_reason": OUTCOMES[0],
        "error": "",
        "answer": "B",
        "turns": [{"completion": "look", "crops": [crop]}],
        "conversations": [talk],
    }


def write_metrics(folder: Path, steps: int, rng: random.Random) -> None:
    """A run's folder with settings and metrics."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(f"run: {{steps: {steps}}}\n")
    names = ["reward", "accuracy", "compliance", "calls", "entropy", "grad_norm", "frames_seen"]
    names += [f"{group}/{name}" for group in ("reward", "accuracy", "calls", "tng", "time")
              for name in "abcdef"]  # fmt: skip
    names += [f"other/{i}" for i in range(METRICS - len(names))]
    with (folder / "metrics.jsonl").open("w") as file:
        for step in range(steps):
            file.write(json.dumps({"step": step, **{n: rng.random() for n in names}}) + "\n")


def write_run(folder: Path, steps: int, rollouts: int) -> None:
    """The run's folder."""
    rng = random.Random(0)
    write_metrics(folder, steps, rng)
    records = [rollout(number, rng) for number in range(rollouts)]
    size = write_step(folder, 0, records)
    data = step_path(folder, 0).read_bytes()
    with (folder / FOLDER / INDEX).open("wb") as index:
        for step in range(steps):
            step_path(folder, step).write_bytes(data)
            index.write(index_line(step, size, records))
    print(
        f"{steps} steps x {rollouts} rollouts of {TOKENS} tokens: {size * steps / 1e6:.0f} MB on "
        f"disk, {size / rollouts / 1e3:.1f} kB a rollout; index "
        f"{(folder / FOLDER / INDEX).stat().st_size / 1e6:.1f} MB, metrics "
        f"{(folder / 'metrics.jsonl').stat().st_size / 1e6:.1f} MB"
    )


def memory(process: int) -> int:
    """The most memory that a process has had, MiB."""
    status = Path(f"/proc/{process}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) // 1024


def processor(process: int) -> float:
    """Seconds of processor time that a process has taken."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def ask(address: str) -> tuple[float, int]:
    """Seconds and bytes of one answer."""
    began = time.perf_counter()
    with urllib.request.urlopen(address, timeout=120) as answer:
        size = len(answer.read())
    return time.perf_counter() - began, size


def main() -> None:
    """Write the run, serve it, ask."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--rollouts", type=int, default=64)
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    served = None
    try:
        print(f"$ {shlex.join(['python', *sys.argv])}\n")
        write_run(folder / "long", args.steps, args.rollouts)
        for number in counted("runs", range(OTHERS)):
            write_metrics(folder / f"other{number:02}", args.steps, random.Random(number))
        command = [sys.executable, "-m", "train", "view", str(folder), "--port", str(port)]
        began = time.perf_counter()
        served = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        address = f"http://127.0.0.1:{port}"
        while True:
            try:
                ask(f"{address}/assets/view.css")
                break
            except urllib.error.URLError:
                time.sleep(0.02)
        print(f"{time.perf_counter() - began:.2f} s from the command until it answers")
        print(f"memory before the first page: {memory(served.pid)} MiB")
        last = args.steps - 1
        pages = {
            "a run, its curves": "/run?run=long",
            "list of the 21 runs": "/?all=1",
            "the curves alone": "/curves?run=long",
            "rollouts of all steps": "/rollouts?run=long&source=steps",
            "wrong ones at K = 8": "/rollouts?run=long&source=steps&outcome=wrong&k=8",
            "rollouts of one step": f"/rollouts?run=long&source=step:{last}",
            "a group side by side": f"/group?run=long&source=step:{last}&group=3",
            "one rollout": f"/rollout?run=long&source=step:{last}&n=9",
        }
        print(f"seconds on the clock (of processor time); load average {os.getloadavg()[0]:.1f}")
        print(f"{'page':36} {'first':>14} {'again':>14} {'kB':>7} {'memory so far':>14}")
        for name, path in pages.items():
            told = []
            for _ in range(2):
                before = processor(served.pid)
                seconds, size = ask(address + path)
                told.append(f"{seconds:5.2f} s ({processor(served.pid) - before:4.2f})")
            print(f"{name:36} {told[0]} {told[1]} {size / 1e3:7.0f} {memory(served.pid):10d} MiB")
    finally:
        if served is not None:
            served.terminate()
            served.wait()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
