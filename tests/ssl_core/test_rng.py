"""Counter-based random numbers: reference values, distributions, independence of keys."""

import torch

from ssl_core import rng


def test_words_equal_splitmix64():
    # The first output of the reference implementation for state 0 is 0xE220A8397B1DCDAF.
    drawn = rng.uniforms(torch.tensor([0]), 1)
    assert drawn.item() == (0xE220A8397B1DCDAF >> 11) * 2.0**-53


def test_uniforms_are_uniform_on_the_unit_interval():
    drawn = rng.uniforms(rng.keys(rng.stream(0, 1), torch.arange(50_000)), 4)
    assert 0 <= drawn.min() < 1e-4
    assert 1 - 1e-4 < drawn.max() < 1
    share = torch.histc(drawn.float(), 20, 0, 1) / drawn.numel()
    assert (share - 0.05).abs().max() < 0.003
    assert torch.corrcoef(drawn.T).fill_diagonal_(0).abs().max() < 0.02


def test_normals_have_mean_zero_and_deviation_one():
    drawn = rng.normals(rng.keys(7, torch.arange(2000)), 101)
    assert drawn.shape == (2000, 101)
    assert drawn.isfinite().all()
    assert abs(drawn.mean()) < 0.01
    assert abs(drawn.std() - 1) < 0.01
    assert abs((drawn.abs() < 1).float().mean() - 0.6827) < 0.005


def test_a_draw_is_a_function_of_its_key_and_number():
    keys = rng.keys(3, torch.arange(100))
    whole = rng.uniforms(keys, 10)
    assert torch.equal(rng.uniforms(keys[40:41], 7), whole[40:41, :7])


def test_streams_of_different_names_differ():
    names = [(a, b, c) for a in range(10) for b in range(10) for c in range(2)]
    assert len({rng.stream(*name) for name in names}) == len(names)
    assert rng.stream(1, 2) != rng.stream(2, 1)


def test_a_permutation_is_complete_and_has_a_uniform_first_element():
    firsts = [int(rng.permutation(rng.stream(0, epoch), 10)[0]) for epoch in range(1000)]
    assert sorted(rng.permutation(5, 1000).tolist()) == list(range(1000))
    assert min(firsts.count(value) for value in range(10)) > 60


def test_the_global_generator_is_not_used():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    rng.permutation(5, 1000)
    rng.normals(rng.keys(7, torch.arange(20)), 11)
    assert torch.equal(torch.rand(3), expected)
