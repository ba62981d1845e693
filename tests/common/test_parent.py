import os
import signal
import subprocess
import sys

from support.endless import ends

POOL = """
import multiprocessing, os, sys, time
from concurrent.futures import ProcessPoolExecutor
from paravt_env.common.parent import end_with

if __name__ == "__main__":
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, end_with, (os.getpid(),)) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        time.sleep(1000)
"""


def test_the_workers_of_a_killed_pool_end(tmp_path):
    (tmp_path / "pool.py").write_text(POOL)
    command = [sys.executable, str(tmp_path / "pool.py")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    with parent, ends():
        assert int(parent.stdout.readline()) != parent.pid
        parent.send_signal(signal.SIGKILL)
        assert parent.stdout.read() == "", "the pipe closes when the worker is gone too"
