"""Heads: lower layers, descriptions, and descriptions of earlier versions."""

import pytest
import torch

from ssl_core.models.heads import MLP

HEADS = {
    "SimCLR": {"last_norm": "bn_no_bias"},
    "SimCLR without batch norm": {"hidden_norm": False},
    "SimSiam": {"last_norm": "bn_no_affine"},
    "ReLU first": {"last_norm": "bn_no_affine", "relu_first": True},
    "GELU": {"activation": "gelu"},
}


@pytest.mark.parametrize("shape", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_lower_layers_have_the_outputs_of_the_head(shape, count):
    torch.manual_seed(0)
    head, h = MLP((6, 8, 7, 5), **shape), torch.randn(9, 6)
    head(h)  # updates the running statistics
    lower = head.lower(count)
    assert lower.widths == [8, 7, 5][:count]
    for mode in (True, False):
        torch.testing.assert_close(lower.train(mode)(h), head.train(mode).layers(h)[count - 1], rtol=0, atol=0)
    assert len(lower.layers(h)) == count


@pytest.mark.parametrize("shape", HEADS.values(), ids=HEADS)
def test_a_head_is_rebuilt_from_its_description(shape):
    for head in (MLP((6, 8, 7), **shape), MLP((6, 8, 7), **shape).lower(1)):
        again = MLP.of_description(head.description)
        again.load_state_dict(head.state_dict())
        h = torch.randn(4, 6)
        torch.testing.assert_close(again.eval()(h), head.eval()(h), rtol=0, atol=0)


def test_all_layers_of_a_head_are_the_head_itself():
    head = MLP((6, 8, 7))
    assert head.lower(2) is head


@pytest.mark.parametrize(
    ("earlier", "last_norm"),
    [("scale", "bn_no_bias"), ("fixed", "bn_no_affine"), ("hidden", "as_hidden"), ("none",) * 2],
)
def test_a_description_of_an_earlier_version_builds_the_same_head(earlier, last_norm):
    head = MLP((6, 8, 7), last_norm=last_norm)
    again = MLP.of_description(head.description | {"last_norm": earlier})
    assert again.description == head.description
    assert {key: value.shape for key, value in again.state_dict().items()} == {
        key: value.shape for key, value in head.state_dict().items()
    }


def test_an_unknown_last_norm_is_refused():
    with pytest.raises(KeyError):
        MLP.of_description(MLP((6, 8, 7)).description | {"last_norm": "other"})
