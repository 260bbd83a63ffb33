"""Reference implementation of google-research/simclr's network in evaluation: NumPy, float64, N×H×W×C.

Variables are numbered in the order in which its resnet.py creates them; missing ones are drawn at random, so a network
that ran once has all of them.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

EPSILON = 1e-5
DEPTHS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


class GoogleNetwork:
    """A ResNet of `planes` planes in its first group, and its head; `variables` are float32 by TensorFlow's names."""

    def __init__(self, depth, planes, *, selective=False, cifar=False, head=(), variables=None):
        self.depth, self.planes, self.selective, self.cifar, self.head = depth, planes, selective, cifar, head
        self.variables = {} if variables is None else variables
        self.random = np.random.default_rng(depth + planes)

    def run(self, images):
        """Return the outputs of the stem, of each group, of the mean over space, and of each head layer."""
        self.made = {}
        x = self.stem(images.astype(np.float64))
        found = {"stem": x}
        for group, blocks in enumerate(DEPTHS[self.depth]):
            for block in range(blocks):
                x = self.block(x, self.planes * 2**group, stride=2 if group and not block else 1, first=not block)
            found[f"block{group + 1}"] = x
        x = found["features"] = x.mean(axis=(1, 2))
        for layer, width in enumerate(self.head):
            x = found[f"head{layer}"] = self.head_layer(x, layer, width)
        return found

    def stem(self, x):
        if self.cifar:
            return self.norm_relu(self.convolution(x, self.planes, 3))
        if self.selective:
            x = self.norm_relu(self.convolution(x, self.planes // 2, 3, 2))
            x = self.norm_relu(self.convolution(x, self.planes // 2, 3))
            x = self.convolution(x, self.planes, 3)
        else:
            x = self.convolution(x, self.planes, 7, 2)
        return same_max_pool(self.norm_relu(x))

    def block(self, x, planes, *, stride, first):
        bottleneck = self.depth >= 50
        outputs = 4 * planes if bottleneck else planes
        shortcut = self.shortcut(x, outputs, stride) if first else x
        if bottleneck:
            x = self.norm_relu(self.convolution(x, planes, 1))
            if self.selective:
                x = self.selective_kernel(x, planes, stride)
            else:
                x = self.norm_relu(self.convolution(x, planes, 3, stride))
            x = self.norm(self.convolution(x, outputs, 1))
        else:
            x = self.norm_relu(self.convolution(x, planes, 3, stride))
            x = self.norm(self.convolution(x, planes, 3))
        return np.maximum(x + shortcut, 0)

    def shortcut(self, x, outputs, stride):
        if not self.selective:
            return self.norm(self.convolution(x, outputs, 1, stride))
        return self.norm(self.convolution(average_pool(x, stride), outputs, 1))

    def selective_kernel(self, x, planes, stride):
        branches = np.split(self.norm_relu(self.convolution(x, 2 * planes, 3, stride)), 2, axis=-1)
        whole = (branches[0] + branches[1]).mean(axis=(1, 2), keepdims=True)
        middle = self.norm_relu(self.convolution(whole, max(planes // 16, 32), 1))
        logits = np.stack(np.split(self.convolution(middle, 2 * planes, 1), 2, axis=-1))
        shares = np.exp(logits) / np.exp(logits).sum(axis=0)
        return branches[0] * shares[0] + branches[1] * shares[1]

    def convolution(self, x, outputs, size, stride=1):
        kernel = self.variable(f"{self.numbered('conv2d')}/kernel", (size, size, x.shape[-1], outputs))
        before, after = (size - 1) // 2, size // 2  # at stride 1 SAME padding, at stride 2 the padding of resnet.py
        x = np.pad(x, ((0, 0), (before, after), (before, after), (0, 0)))
        windows = sliding_window_view(x, (size, size), axis=(1, 2))[:, ::stride, ::stride]  # N×H×W×C×K×K
        return np.einsum("nhwcij,ijco->nhwo", windows, kernel, optimize=True)

    def norm(self, x, scope=None, *, shift=True):
        scope = scope or self.numbered("batch_normalization")
        mean = self.variable(f"{scope}/moving_mean", x.shape[-1:])
        variance = self.variable(f"{scope}/moving_variance", x.shape[-1:])
        x = (x - mean) / np.sqrt(variance + EPSILON) * self.variable(f"{scope}/gamma", x.shape[-1:])
        return x + self.variable(f"{scope}/beta", x.shape[-1:]) if shift else x

    def norm_relu(self, x):
        return np.maximum(self.norm(x), 0)

    def head_layer(self, x, layer, width):
        scope, last = f"head_contrastive/nl_{layer}", layer == len(self.head) - 1
        x = x @ self.variable(f"{scope}/dense/kernel", (x.shape[-1], width))
        x = self.norm(x, f"{scope}/batch_normalization", shift=not last)
        return x if last else np.maximum(x, 0)

    def numbered(self, kind):
        number = self.made[kind] = self.made.get(kind, -1) + 1
        return f"base_model/{kind}_{number}" if number else f"base_model/{kind}"

    def variable(self, name, shape):
        if name not in self.variables:
            self.variables[name] = self.drawn(name, shape).astype(np.float32)
        assert self.variables[name].shape == tuple(shape)
        return self.variables[name].astype(np.float64)

    def drawn(self, name, shape):
        if name.endswith("kernel"):
            return self.random.normal(0, np.prod(shape[:-1]) ** -0.5, shape)
        if name.endswith(("gamma", "variance")):
            return self.random.uniform(0.5, 1.5, shape)
        return self.random.normal(0, 0.3, shape)


def same_max_pool(x):
    """3×3 at stride 2, padded SAME: half before, and an odd one after."""
    total = max((-(-x.shape[1] // 2) - 1) * 2 + 3 - x.shape[1], 0)
    pad = (total // 2, total - total // 2)
    x = np.pad(x, ((0, 0), pad, pad, (0, 0)), constant_values=-np.inf)
    return sliding_window_view(x, (3, 3), axis=(1, 2))[:, ::2, ::2].max(axis=(-1, -2))


def average_pool(x, stride):
    """2×2; at stride 2 padded by a row and a column of zeros, at stride 1 SAME, whose mean excludes padding."""
    padded = np.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))
    total = sliding_window_view(padded, (2, 2), axis=(1, 2))[:, ::stride, ::stride].sum(axis=(-1, -2))
    if stride == 2:
        return total / 4
    there = np.pad(np.ones(x.shape[1:3]), ((0, 1), (0, 1)))
    return total / sliding_window_view(there, (2, 2)).sum(axis=(-1, -2))[None, :, :, None]
