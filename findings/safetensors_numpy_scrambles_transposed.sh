#!/usr/bin/env bash
# safetensors 0.8.0 saves a transposed NumPy array in memory order: it comes back scrambled.
#
# Versions: safetensors 0.8.0, and 0.7.0 which does not; numpy 2.3.5. Seen: 2026-12-01.
# Matters to: frames, features or weights that were turned, (H, W, C) to (C, H, W), before they are
# stored. Shape and type come back right, so nothing fails. The docstring asks for contiguous
# arrays, in both versions; safetensors.torch refuses such a tensor, 0.7.0 copied it. Wrap what you
# save in `np.ascontiguousarray`.

set -euo pipefail
unset PYTHONPATH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv venv

cat > turned.py <<'PYTHON'
import sys

import numpy as np
import safetensors
from safetensors.numpy import load_file, save_file

picture = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
channels = picture.transpose(2, 0, 1)
save_file({"turned": channels, "copied": np.ascontiguousarray(channels)}, "a.safetensors")
loaded = load_file("a.safetensors")

print(f"safetensors {safetensors.__version__}, first channel (of {channels.shape})")
print("  guess: ", channels[0].tolist(), "or an error")
print("  seen:  ", loaded["turned"][0].tolist())
print("  copied:", loaded["copied"][0].tolist())
equal = [bool((loaded[name] == channels).all()) for name in ("turned", "copied")]
if equal != [safetensors.__version__ == "0.7.0", True]:
    sys.exit("changed")
PYTHON
for version in 0.7.0 0.8.0; do
  venv/bin/pip install --quiet "safetensors==$version" numpy==2.3.5
  venv/bin/python turned.py
done
