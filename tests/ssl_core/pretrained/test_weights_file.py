"""Weights files: formats, refusals, and that no code in a file is executed."""

import argparse
import json
import os
import struct
import zipfile

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from ssl_core.errors import BadWeights
from ssl_core.pretrained import weights_file

WEIGHTS = {"a.weight": torch.arange(6.0).view(2, 3), "a.count": torch.tensor(3)}


class Code:
    """Runs a command when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("/tmp/twoviews-was-run",)


def saved(path, content, **options):
    torch.save(content, path, **options)
    return path


def refused(path):
    with pytest.raises(BadWeights) as refusal:
        weights_file.read(path)
    return refusal.value


def same(found, expected):
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_the_format_is_detected_from_the_bytes_and_not_the_name(tmp_path):
    save_file(WEIGHTS, tmp_path / "x.pt")
    saved(tmp_path / "x.safetensors", WEIGHTS)
    saved(tmp_path / "x", WEIGHTS, _use_new_zipfile_serialization=False)
    for name, kind in {"x.pt": "safetensors", "x.safetensors": "torch", "x": "torch_legacy"}.items():
        found, tensors = weights_file.read(tmp_path / name)
        assert found == kind
        same(tensors, WEIGHTS)


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_of_nested_dicts_have_dotted_names_and_other_values_are_ignored(tmp_path, zipped):
    content = {
        "state_dict": WEIGHTS,
        "epoch": 3,
        "arch": "resnet18",
        "optimizer": {"state": {0: {"momentum": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]},
    }
    _, tensors = weights_file.read(saved(tmp_path / "x", content, _use_new_zipfile_serialization=zipped))
    same(tensors, {f"state_dict.{name}": value for name, value in WEIGHTS.items()})


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_is_refused_and_not_executed(tmp_path, zipped):
    path = saved(tmp_path / "x", {**WEIGHTS, "extra": Code()}, _use_new_zipfile_serialization=zipped)
    assert refused(path).code == "unsafe_pickle"
    assert not os.path.exists("/tmp/twoviews-was-run")


def test_the_error_of_a_foreign_object_names_it_and_the_fix(tmp_path):
    error = refused(saved(tmp_path / "x", {"state_dict": WEIGHTS, "args": argparse.Namespace(lr=1)}))
    assert error.code == "unsafe_pickle"
    assert "argparse.Namespace" in error.detail
    assert "torch.save(model.state_dict(), path)" in error.detail


@pytest.mark.parametrize("content", [{}, [torch.ones(3)], torch.ones(3), {"epoch": 3}, {0: torch.ones(3)}, None])
def test_a_file_without_a_named_tensor_is_refused(tmp_path, content):
    assert refused(saved(tmp_path / "x", content)).code == "no_tensors"


def test_an_empty_safetensors_file_is_refused(tmp_path):
    save_file({}, tmp_path / "x")
    assert refused(tmp_path / "x").code == "no_tensors"


def test_sparse_and_meta_tensors_are_ignored(tmp_path):
    content = {"sparse": torch.eye(3).to_sparse(), "meta": torch.ones(3, device="meta"), **WEIGHTS}
    same(weights_file.read(saved(tmp_path / "x", content))[1], WEIGHTS)


def test_a_dict_with_many_references_is_visited_once(tmp_path):
    group = {"w": torch.ones(1)}
    for _ in range(5):
        group = {str(number): group for number in range(100)} | {"w": torch.ones(1)}
    _, tensors = weights_file.read(saved(tmp_path / "x", group))
    assert 1 <= len(tensors) <= 6


def test_too_many_tensors_and_too_long_names_are_refused(tmp_path, monkeypatch):
    assert refused(saved(tmp_path / "x", {"a" * 501: torch.ones(1)})).code == "not_weights"
    monkeypatch.setattr(weights_file, "_MAX_TENSORS", 1)
    assert refused(saved(tmp_path / "x", WEIGHTS)).code == "too_many_tensors"


def test_a_zip_that_unpacks_to_more_than_its_size_is_refused_unread(tmp_path):
    saved(tmp_path / "good", {"w": torch.zeros(1_000_000)})
    with zipfile.ZipFile(tmp_path / "good") as good, zipfile.ZipFile(tmp_path / "bad", "w") as bad:
        for entry in good.infolist():
            bad.writestr(entry.filename, good.read(entry), zipfile.ZIP_DEFLATED)
    assert refused(tmp_path / "bad").code == "bomb"
    whole = (tmp_path / "good").read_bytes()
    size = struct.pack("<I", 4_000_000)
    (tmp_path / "lying").write_bytes(whole.replace(size, struct.pack("<I", 900_000_000)))
    assert refused(tmp_path / "lying").code in ("bomb", "not_weights")


def header(content, length=None):
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text


HUGE = {"dtype": "F32", "shape": [2**31, 2**31], "data_offsets": [0, 2**62]}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b"PK\x03\x04",
        b"\x80\x02",
        header({"w": HUGE}),
        header({"w": HUGE | {"shape": [2**62], "data_offsets": [0, 0]}}),
        header(b"{}", length=2**63),
        header(b"{}", length=99_000_000),
        header(b"{" * 100_000),
        header({"w": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}) + bytes(4),
        header({"w": {"dtype": "X", "shape": [1], "data_offsets": [0, 4]}}) + bytes(4),
    ],
    ids=range(11),
)
def test_files_without_weights_are_refused(tmp_path, data):
    (tmp_path / "x").write_bytes(data)
    assert refused(tmp_path / "x").code == "not_weights"


def write_all_formats(folder):
    save_file(WEIGHTS, folder / "safetensors")
    saved(folder / "torch", {"state_dict": WEIGHTS})
    saved(folder / "torch_legacy", {"state_dict": WEIGHTS}, _use_new_zipfile_serialization=False)
    return {name: (folder / name).read_bytes() for name in ("safetensors", "torch", "torch_legacy")}


DAMAGE = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), max_size=4)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["safetensors", "torch", "torch_legacy"])
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(flips=DAMAGE, keep=st.one_of(st.just(1.0), st.floats(0, 1)))
def test_a_damaged_file_gives_tensors_or_a_known_error(tmp_path, kind, flips, keep):
    data = bytearray(write_all_formats(tmp_path)[kind])
    for place, change in flips:
        data[int(place * len(data))] ^= change
    (tmp_path / "x").write_bytes(data[: int(keep * len(data))])
    try:
        assert weights_file.read(tmp_path / "x")[1]
    except (BadWeights, MemoryError):
        return
