"""The mark of tests that need a CUDA GPU, and the benchmark script as a module."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import torch

cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


def benchmark_script(monkeypatch):
    """The script as a module."""
    path = Path(__file__).parents[2] / "benchmarks" / "gpu.py"
    spec = spec_from_file_location("gpu_benchmark", path)
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look it up
    spec.loader.exec_module(module)
    return module
