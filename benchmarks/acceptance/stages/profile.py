"""Profile of training steps: a table of operators, and a trace for chrome://tracing or Perfetto."""

from collections.abc import Iterator

import torch
from torch.profiler import ProfilerActivity

from benchmarks.acceptance.figure import Figure
from benchmarks.acceptance.setup import Setup
from benchmarks.acceptance.training_step import TrainingStep, measure_ms, synchronize

_ROWS = 60


def measure(setup: Setup) -> Iterator[Figure]:
    steps = 1 if setup.tiny else 8
    on_gpu = setup.device == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with TrainingStep.open(setup) as step:
        measure_ms(setup, step.take, steps)
        with torch.profiler.profile(activities=activities) as profiler:
            for _ in range(steps):
                step.take()
            synchronize(setup)
    averages = profiler.key_averages()
    order = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    table, trace = setup.out / "profile.txt", setup.out / "trace.json.gz"
    table.write_text(averages.table(sort_by=order, row_limit=_ROWS, max_name_column_width=90))
    profiler.export_chrome_trace(str(trace))
    yield Figure("operators in a step", sum(e.count for e in averages if e.key.startswith("aten::")) / steps)
    if on_gpu:
        yield Figure("GPU busy in a step", sum(e.self_device_time_total for e in averages) / steps / 1000, "ms")
        yield Figure("kernels in a step", sum(e.count for e in averages if "LaunchKernel" in e.key) / steps)
    yield Figure("files", f"{table.name}, {trace.name}")
