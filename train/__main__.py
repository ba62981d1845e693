"""`python -m train` is the `paravt` command, in the form that torchrun starts.

`torchrun --nproc-per-node 8 -m train train paragrpo_8b`.
"""

import sys

from train.cli import main

if __name__ == "__main__":
    sys.exit(main())
