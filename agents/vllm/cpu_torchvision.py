"""Makes the package index's torchvision importable under a CPU build of torch.

That wheel is linked against CUDA: its library does not load, and its Python code stops at
describing operators that were never declared. vLLM and transformers import torchvision but use none
of them, so declaring the two is enough. Needed on CPU machines alone, and only for the vllm extra:

    python -m agents.vllm.cpu_torchvision

writes a copy of this file and a `.pth` line into the environment's site-packages; from then on
every process of it (vLLM starts several) declares the operators when torchvision is first imported.
"""

from __future__ import annotations

import shutil
import sys
import sysconfig
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType

OPERATORS = ("nms", "qnms")


class DeclareFirst:
    """An import finder that finds nothing: it declares the operators when torchvision is asked for.

    The operators live as long as `library` does, and can be declared once in a process.
    """

    library: object = None

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Leave the import to the other finders."""
        if name == "torchvision" and self.library is None:
            import torch  # may itself look for torchvision

            if self.library is None and not (torch.version.cuda or torch.version.hip):
                DeclareFirst.library = library = torch.library.Library("torchvision", "FRAGMENT")
                for operator in OPERATORS:
                    signature = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
                    library.define(operator + signature)
        return None


def arm() -> None:
    """Called by the `.pth` line at the start of every process; imports nothing yet."""
    sys.meta_path.insert(0, DeclareFirst())


def install() -> str:
    """Write the two files and say so; nothing where torchvision needs no help."""
    try:
        build = version("torchvision").partition("+")[2]
    except PackageNotFoundError:
        return "torchvision is not installed: nothing to do"
    import torch

    if torch.version.cuda or torch.version.hip or build == "cpu":
        return "this torchvision needs no help"
    folder = Path(sysconfig.get_paths()["purelib"])
    shutil.copy(__file__, folder / "cpu_torchvision.py")
    (folder / "cpu_torchvision.pth").write_text("import cpu_torchvision; cpu_torchvision.arm()\n")
    return f"wrote {folder / 'cpu_torchvision.pth'}"


if __name__ == "__main__":
    print(install())
