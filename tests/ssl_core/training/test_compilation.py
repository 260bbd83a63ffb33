"""Compiled training: the same weights each time, those of plain training where the compiler fails."""

import weakref
from functools import partial

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch._inductor import config as inductor

from ssl_core import config
from ssl_core.events import Log, Metrics, Model
from ssl_core.inputs import Inputs
from ssl_core.models import grad_cache
from ssl_core.models.resnet import ResNet
from ssl_core.run import run
from ssl_core.serialization import checkpoint_files
from ssl_core.training.compilation import Compilation
from tests.ssl_core.digits import pack_digits
from tests.ssl_core.training.test_resume import HEADS, TINY


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return pack_digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture
def traced(monkeypatch):
    """torch.compile without Inductor, whose C++ compiler takes a minute: the graphs are traced, and run as they are."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))


def fail(graph, inputs):
    raise RuntimeError("no compiler")


def ask(name="simclr", **fields):
    return config.parse({"method": {"name": name, **HEADS}, **TINY, "epochs": 4, **fields})


def train(asked, digits, directory, until=None):
    """The events; those up to the first metrics of step `until`, as a kill leaves the run."""
    directory.mkdir(exist_ok=True)
    events = []
    for event in run(asked, Inputs(digits, checkpoint=checkpoint_files.find_newest(directory)), directory):
        events.append(event)
        if until is not None and isinstance(event, Metrics) and event.step >= until:
            break
    return events


def weights(events):
    (model,) = (event for event in events if isinstance(event, Model))
    return model.sha256


def losses(events):
    return [e.values["train/loss"] for e in events if isinstance(e, Metrics) and "train/loss" in e.values]


@pytest.mark.parametrize("name", ["simclr", "byol"])  # byol has a second backbone, its target, without gradients
def test_a_compiled_run_that_is_killed_leaves_the_bytes_of_one_that_is_not(name, digits, tmp_path, traced):
    asked = ask(name, compile=True)
    whole = train(asked, digits, tmp_path / "whole")
    for point in (4, 9):
        train(asked, digits, tmp_path / "cut", until=point)
    assert weights(train(asked, digits, tmp_path / "cut")) == weights(whole)
    assert not [event for event in whole if isinstance(event, Log)]
    plain = train(ask(name, compile=False), digits, tmp_path / "plain")
    assert losses(whole) == pytest.approx(losses(plain), rel=1e-3)


def test_both_image_sizes_are_compiled_and_no_evaluation(digits, tmp_path, monkeypatch):
    sizes = []

    def keep_sizes(graph, inputs):
        sizes.extend(tuple(each.shape) for each in inputs if each.ndim == 4 and not isinstance(each, nn.Parameter))
        return graph

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=keep_sizes))
    events = train(ask(compile=True), digits, tmp_path / "run")
    assert any("online/knn" in event.values for event in events if isinstance(event, Metrics))
    assert sizes == [(32, 3, 8, 8), (32, 3, 12, 12)]


def test_a_run_whose_compiler_fails_goes_on_without_it_to_the_same_bytes(digits, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    with inductor.patch({"cpp.cxx": ("no-such-compiler",)}):
        events = train(ask(compile=True), digits, tmp_path / "failed")
    (warning,) = (event for event in events if isinstance(event, Log))
    assert (warning.level, warning.code) == ("warning", "compiler_failed")
    assert "no-such-compiler" in warning.data["reason"]
    assert weights(events) == weights(train(ask(compile=False), digits, tmp_path / "plain"))


def test_a_run_that_failed_to_compile_and_goes_on_compiled_says_so(digits, tmp_path, monkeypatch, traced):
    asked, folder = ask(compile=True), tmp_path / "run"
    with monkeypatch.context() as broken:
        broken.setattr(torch, "compile", partial(torch.compile, backend=fail))
        train(asked, digits, folder, until=4)
    logs = [event for event in train(asked, digits, folder) if isinstance(event, Log)]
    assert [log.code for log in logs] == ["resumed", "versions_differ"]
    assert "compiled" not in logs[1].data["then"]
    assert logs[1].data["now"] == logs[1].data["then"] | {"compiled": "true"}


def small_network():
    return ResNet("resnet10", width=0.125, stem="cifar", zero_init_residual=False, google=False)


@pytest.mark.parametrize("recorded", [False, True])
def test_a_recording_that_fails_in_a_later_step_is_given_up_too(recorded):
    """The step is computed again, from the network that it began with."""
    network = small_network()
    compilation, images, calls = Compilation(network, is_recorded=recorded), torch.randn(4, 3, 8, 8), []

    def compute():
        calls.append(compilation.is_active)
        for buffer in network.buffers():
            buffer.add_(1)
        if calls == [True, True]:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing")
        return images

    before = [buffer.clone() for buffer in network.buffers()]
    for _ in range(3):
        assert compilation.attempt(compute, "shape") is images
    assert calls == [True, True, False, False]
    assert compilation.failure == "CUDA error: operation not permitted when stream is capturing"
    assert all(torch.equal(now, then + 3) for now, then in zip(network.buffers(), before, strict=True))


def test_too_little_memory_is_no_failure_of_the_compiler():
    network = small_network()
    compilation = Compilation(network, is_recorded=False)

    def compute():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    with pytest.raises(torch.OutOfMemoryError):
        compilation.attempt(compute, "shape")
    assert compilation.is_active


def test_the_tensors_of_a_failed_pass_are_freed_before_the_second():
    compilation, views = Compilation(small_network(), is_recorded=False), []

    def compute():
        made = torch.zeros(8)
        views.append(weakref.ref(made))
        if len(views) == 1:
            raise RuntimeError("backend='inductor' raised")
        return views[0]() is None

    assert compilation.attempt(compute, "shape")


def test_chunks_stay_when_the_compiler_fails():
    network = small_network()
    compilation = Compilation(network, is_recorded=False)
    grad_cache.cache_gradients(network, 2)
    chunked, seen = network.forward, []
    network.conv1.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))

    def compute():
        if compilation.is_active:
            raise RuntimeError("backend='inductor' raised")
        return network(torch.randn(4, 3, 8, 8))

    assert compilation.attempt(compute, "shape").shape == (4, network.dim)
    assert network.forward is chunked
    assert seen == [2, 2]


@pytest.mark.parametrize("other", [{"devices": 2}, {"chunk_size": 8}])
def test_only_a_run_on_one_device_without_chunks_is_compiled(other):
    with pytest.raises(ValidationError, match="compile needs one device and no chunk_size"):
        ask(compile=True, **other)
    assert ask(compile="auto", **other).compile == "auto"
