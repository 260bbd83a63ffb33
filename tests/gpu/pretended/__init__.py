"""A pretended GPU: tensors that report the device cuda:0 and are computed on the CPU, by a torch built for CPUs.

Autograd and autocast take the wrapper of `tensor` for a GPU's, by a device guard and hooks compiled from `guard.cpp`,
and the dispatch mode of `dispatch` sees each operator before it runs. It raises what CUDA would raise (`devices`), and
records operators, host waits and copies (`traffic`, `record`). It knows nothing of kernels, their speed and rounding,
of memory, streams or several GPUs.
"""
