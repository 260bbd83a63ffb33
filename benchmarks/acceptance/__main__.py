"""`python -m benchmarks.acceptance first|long`: the core on a GPU, or in small on a CPU.

`first` takes 5 minutes at most: each method trains, exactness, speed, profile, comparison with lightly, evaluation,
embedding, views and loss. `long`, 8 minutes at most: 200 epochs of SimCLR. Each stage is a process that is killed at
its limit; OUT/first.json and OUT/long.json are written after each. A goal that is not met is shown and is no failure.
"""

import sys

from benchmarks.acceptance.command import main
from benchmarks.acceptance.parts import PARTS

if __name__ == "__main__":
    sys.exit(main(PARTS))
