"""Benchmark of NT-Xent in tiles and with the whole matrix of similarities: memory and time of value and gradient.

    python -m benchmarks.contrastive_memory [--embeddings 4096 8192 16384 32768 65536] [--most-dense 16384]
        [--processes 1]

Embeddings 2N×128 in fp32 on a CPU. Each figure is of a process of its own: its peak of resident memory, less what it
took before the loss. `error` is the difference of the gradients, relative to the dense one. With `--processes` it is
the loss of one of so many processes that train together: of its own rows against all columns.
"""

import argparse
import subprocess
import sys
from typing import Any

_PROGRAM = """
import resource, sys, time
import torch
from ssl_core.methods import losses

rows, in_tiles, compared = int(sys.argv[1]), sys.argv[2] == "tiled", sys.argv[3] == "True"
own = slice(rows // 2 // int(sys.argv[4]))

def measure(most):
    losses.MOST_DENSE_ROWS = most
    generator = torch.Generator().manual_seed(0)
    views = [torch.randn(rows // 2, 128, generator=generator).requires_grad_() for _ in range(2)]
    before, start = peak(), time.perf_counter()
    loss = losses.nt_xent(*views, temperature=0.2, images=own)
    loss.backward()
    return peak() - before, time.perf_counter() - start, loss.detach(), torch.cat([view.grad for view in views])

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

torch.randn(64, 64) @ torch.randn(64, 64)
taken, seconds, loss, gradient = measure(0 if in_tiles else rows)
error = float("nan")
if compared:
    _, _, other_loss, other = measure(rows)
    error = max(abs(loss - other_loss) / other_loss, (gradient - other).norm() / other.norm()).item()
print(taken, seconds, error)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--embeddings", type=int, nargs="+", default=[2**n for n in range(12, 17)])
    parser.add_argument("--most-dense", type=int, default=16_384, help="of the dense loss, which takes five matrices")
    parser.add_argument("--processes", type=int, default=1, help="that share the rows")
    arguments = parser.parse_args()
    print("| 2N | matrix | dense | tiled | of the matrix | dense, s | tiled, s | error |\n" + "|---" * 8 + "|")
    for rows in arguments.embeddings:
        matrix, is_dense = 4 * rows**2 // arguments.processes, rows <= arguments.most_dense
        taken, seconds, error = _measure(rows, "tiled", is_dense, arguments.processes)
        dense = _measure(rows, "dense", False, arguments.processes) if is_dense else None
        shown: list[Any] = [f"{rows:,}", _megabytes(matrix), _megabytes(dense[0]) if dense else "", _megabytes(taken)]
        shown += [f"{taken / matrix:.1%}", f"{dense[1]:.2f}" if dense else "", f"{seconds:.2f}"]
        print("|", " | ".join([*shown, f"{error:.1e}" if dense else ""]), "|", flush=True)


def _measure(rows: int, kind: str, compared: bool, processes: int) -> tuple[float, ...]:
    command = [sys.executable, "-c", _PROGRAM, str(rows), kind, str(compared), str(processes)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return tuple(map(float, done.stdout.split()))


def _megabytes(size: float) -> str:
    return f"{size / 1e6:,.0f} MB"


if __name__ == "__main__":
    main()
