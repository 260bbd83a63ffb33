"""Heads: the lower part of one gives what the whole gives in that layer."""

import pytest
import torch

from ssl_core.models.heads import MLP

HEADS = {
    "SimCLR's": {"last_norm": "scale"},
    "SimCLR's without batch norm": {"hidden_norm": False},
    "SimSiam's": {"last_norm": "fixed"},
    "ReLU first": {"last_norm": "fixed", "relu_first": True},
    "GELU": {"activation": "gelu"},
}


@pytest.mark.parametrize("shape", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_lower_part_gives_what_the_head_gives_in_that_layer(shape, count):
    torch.manual_seed(0)
    head, h = MLP((6, 8, 7, 5), **shape), torch.randn(9, 6)
    head(h)  # moves the running statistics
    lower = head.lower(count)
    assert lower.widths == [8, 7, 5][:count]
    for mode in (True, False):
        torch.testing.assert_close(lower.train(mode)(h), head.train(mode).layers(h)[count - 1], rtol=0, atol=0)
    assert len(lower.layers(h)) == count


@pytest.mark.parametrize("shape", HEADS.values(), ids=HEADS)
def test_a_description_makes_an_equal_head_again(shape):
    for head in (MLP((6, 8, 7), **shape), MLP((6, 8, 7), **shape).lower(1)):
        again = MLP(**head.description)
        again.load_state_dict(head.state_dict())
        h = torch.randn(4, 6)
        torch.testing.assert_close(again.eval()(h), head.eval()(h), rtol=0, atol=0)


def test_a_whole_head_is_its_own_lower_part():
    head = MLP((6, 8, 7))
    assert head.lower(2) is head
