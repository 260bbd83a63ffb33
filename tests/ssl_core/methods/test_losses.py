"""Losses against unvectorised float64 transcriptions of the papers' equations: values and gradients."""

import math

import pytest
import torch

from ssl_core.methods import losses, tiled


def unit(row):
    return row / row.pow(2).sum().sqrt()


def reference_nt_xent(z1, z2, *, temperature, same_view_negatives=True, decoupled=False):
    """Equation 1 of the SimCLR paper, pair by pair."""
    z = [unit(row) for row in torch.cat([z1, z2])]
    n, total = len(z1), 0.0
    for i in range(2 * n):
        j = (i + n) % (2 * n)
        others = [k for k in range(2 * n) if k not in (i, j)]
        if not same_view_negatives:
            others = [k for k in others if (k < n) != (i < n)]
        if not decoupled:
            others.append(j)
        total = total - torch.log(
            torch.exp(z[i] @ z[j] / temperature) / sum(torch.exp(z[i] @ z[k] / temperature) for k in others)
        )
    return total / (2 * n)


def reference_info_nce(q, k, queue, *, temperature):
    """Equation 1 of MoCo's paper; without a queue the batch's other keys are the negatives."""
    total = 0.0
    for i, row in enumerate(q):
        keys = [k[i], *queue] if len(queue) else [k[i], *(key for j, key in enumerate(k) if j != i)]
        scores = [torch.exp(unit(row) @ unit(key) / temperature) for key in keys]
        total = total - torch.log(scores[0] / sum(scores))
    return total / len(q)


def reference_negative_cosine(p, z):
    return -sum(unit(a) @ unit(b) for a, b in zip(p, z, strict=True)) / len(p)


def reference_barlow_twins(z1, z2, *, redundancy):
    """Equation 1 of the paper, with the batch norm (ε 1e-5, biased variance) of the authors' code."""
    n, d = z1.shape
    a, b = ((z - z.mean(0)) / ((z - z.mean(0)).pow(2).mean(0) + 1e-5).sqrt() for z in (z1, z2))
    total = 0.0
    for i in range(d):
        for j in range(d):
            c = sum(a[m, i] * b[m, j] for m in range(n)) / n
            total = total + ((1 - c) ** 2 if i == j else redundancy * c**2)
    return total


def reference_vicreg(z1, z2, *, invariance, variance, covariance):
    """Equations 1 to 6 of the paper, with the means of the authors' code."""
    n, d = z1.shape
    s = sum((z1[m, i] - z2[m, i]) ** 2 for m in range(n) for i in range(d)) / (n * d)
    v = c = 0.0
    for z in (z1, z2):
        mean = z.sum(0) / n
        cov = sum(torch.outer(row - mean, row - mean) for row in z) / (n - 1)
        v = v + sum(torch.clamp(1 - torch.sqrt(cov[i, i] + 1e-4), min=0) for i in range(d)) / d / 2
        c = c + sum(cov[i, j] ** 2 for i in range(d) for j in range(d) if i != j) / d
    return invariance * s + variance * v + covariance * c


def reference_distillation(student, teacher):
    total = 0.0
    for s, t in zip(student, teacher, strict=True):
        target, predicted = torch.exp(t) / torch.exp(t).sum(), torch.exp(s) / torch.exp(s).sum()
        total = total - sum(a * torch.log(b) for a, b in zip(target, predicted, strict=True))
    return total / len(student)


def rows(count, n, d, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, d, generator=generator, dtype=dtype).requires_grad_() for _ in range(count)]


VICREG = {"invariance": 25.0, "variance": 25.0, "covariance": 1.0}
# Name -> the loss, its transcription, its number of tensors, and its settings.
CASES = {
    "nt_xent": (losses.nt_xent, reference_nt_xent, 2, {"temperature": 0.5}),
    "nt_xent, sharp": (losses.nt_xent, reference_nt_xent, 2, {"temperature": 0.1}),
    "nt_xent, other view alone": (
        losses.nt_xent, reference_nt_xent, 2, {"temperature": 0.3, "same_view_negatives": False},
    ),
    "nt_xent, decoupled": (losses.nt_xent, reference_nt_xent, 2, {"temperature": 0.2, "decoupled": True}),
    "nt_xent, other view alone, decoupled": (
        losses.nt_xent, reference_nt_xent, 2, {"temperature": 1.0, "same_view_negatives": False, "decoupled": True},
    ),
    "info_nce": (losses.info_nce, reference_info_nce, 3, {"temperature": 0.2}),
    "negative_cosine": (losses.negative_cosine, reference_negative_cosine, 2, {}),
    "barlow_twins": (losses.barlow_twins, reference_barlow_twins, 2, {"redundancy": 0.005}),
    "vicreg": (losses.vicreg, reference_vicreg, 2, VICREG),
    "vicreg, other weights": (
        losses.vicreg, reference_vicreg, 2, {"invariance": 1.0, "variance": 2.0, "covariance": 3.0},
    ),
    "distillation": (losses.dino_cross_entropy, reference_distillation, 2, {}),
}  # fmt: skip


@pytest.mark.parametrize("shape", [(5, 7), (8, 3), (2, 16)])
@pytest.mark.parametrize("case", CASES)
def test_a_loss_and_its_gradient_equal_the_papers_formula(case, shape):
    loss, reference, count, settings = CASES[case]
    ours, theirs = rows(count, *shape), rows(count, *shape)
    value, expected = loss(*ours, **settings), reference(*theirs, **settings)
    torch.testing.assert_close(value, expected)
    value.backward()
    expected.backward()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.grad, b.grad)


@pytest.fixture
def small_tiles(monkeypatch):
    """Similarities in tiles of a few rows."""
    monkeypatch.setattr(losses, "MOST_DENSE_ROWS", 0)
    monkeypatch.setattr(tiled, "_TILE_BYTES", 256)


@pytest.mark.parametrize("shape", [(5, 7), (8, 3), (2, 16)])
@pytest.mark.parametrize("case", [case for case in CASES if case.startswith("nt_xent")])
def test_nt_xent_in_tiles_equals_the_papers_formula(case, shape, small_tiles):
    test_a_loss_and_its_gradient_equal_the_papers_formula(case, shape)


@pytest.mark.parametrize("method", ["nt_xent", "info_nce"])
def test_a_loss_in_tiles_is_within_1e_5_of_the_dense_one_in_fp32(method, monkeypatch):
    found = []
    for most in (10_000, 0):
        monkeypatch.setattr(losses, "MOST_DENSE_ROWS", most)
        q, k = rows(2, 1500, 32, torch.float32)  # 3,000 rows of 12 kB; the last tile is smaller
        pairs = (q, k) if method == "nt_xent" else (q, k, k[:0])
        value = getattr(losses, method)(*pairs, temperature=0.1)
        (3 * value).backward()
        found.append((value.detach(), q.grad, k.grad))
    for dense, in_tiles in zip(*found, strict=True):
        assert (in_tiles - dense).norm() <= 1e-5 * dense.norm()


def test_tiles_save_no_matrix_of_similarities(small_tiles):
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
        losses.nt_xent(*rows(2, 300, 8), temperature=0.2)
    assert max(sizes) == 600 * 8


def contrastive_loss(views, settings, images=slice(None)):
    """NT-Xent, or without its settings MoCo v3's loss, of which a share has its own queries alone."""
    if settings is None:
        q, k = views
        return losses.info_nce(q[images], k, k[:0], temperature=0.2, images=images)
    return losses.nt_xent(*views, temperature=0.2, images=images, **settings)


CONTRASTIVE = {
    "nt_xent": {},
    "nt_xent, other view alone": {"same_view_negatives": False},
    "nt_xent, decoupled": {"decoupled": True},
    "nt_xent, other view alone, decoupled": {"same_view_negatives": False, "decoupled": True},
    "info_nce": None,
}


@pytest.mark.parametrize("most_dense", [10_000, 0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", CONTRASTIVE)
def test_the_losses_of_shares_of_the_images_have_the_mean_and_the_gradient_of_all(case, dtype, most_dense, monkeypatch):
    whole, shared = (rows(2, 12, 5, dtype) for _ in range(2))
    expected = contrastive_loss(whole, CONTRASTIVE[case])  # with the whole matrix
    monkeypatch.setattr(losses, "MOST_DENSE_ROWS", most_dense)
    monkeypatch.setattr(tiled, "_TILE_BYTES", 256)
    shares = [contrastive_loss(shared, CONTRASTIVE[case], slice(4 * n, 4 * n + 4)) for n in range(3)]
    assert len({share.item() for share in shares}) == 3
    value = torch.stack(shares).mean()
    torch.testing.assert_close(value, expected)
    value.backward()
    expected.backward()
    for mine, theirs in zip(shared, whole, strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)


@pytest.mark.parametrize("case", CONTRASTIVE)
def test_the_loss_of_a_share_has_the_similarities_of_its_rows_alone(case):
    shapes = set()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: shapes.add(tuple(t.shape)) or t, lambda t: t):
        contrastive_loss(rows(2, 12, 3), CONTRASTIVE[case], slice(4, 8))
    assert max(shapes, key=math.prod) == ((8, 24) if case.startswith("nt_xent") else (4, 12))


@pytest.mark.parametrize("temperature", [0.07, 0.2, 1.0])
def test_without_a_queue_the_negatives_are_the_keys_of_the_batch(temperature):
    q, k = rows(2, 6, 5)
    empty = k[:0]
    value = losses.info_nce(q, k, empty, temperature=temperature)
    torch.testing.assert_close(value, reference_info_nce(q, k, empty, temperature=temperature))


def test_without_a_queue_the_loss_in_tiles_is_the_same(small_tiles):
    test_without_a_queue_the_negatives_are_the_keys_of_the_batch(0.2)


def test_nt_xent_of_orthogonal_views_is_the_log_of_the_number_of_others():
    z = torch.eye(16)
    assert losses.nt_xent(z[:8], z[8:], temperature=0.5).item() == pytest.approx(math.log(15))
    alone = losses.nt_xent(z[:8], z[8:], temperature=0.5, same_view_negatives=False)
    assert alone.item() == pytest.approx(math.log(8))


def test_nt_xent_is_invariant_to_the_norm_of_embeddings():
    z1, z2 = rows(2, 5, 7)
    torch.testing.assert_close(
        losses.nt_xent(z1 * 7, z2 * 0.1, temperature=0.2), losses.nt_xent(z1, z2, temperature=0.2)
    )


@pytest.mark.parametrize("case", CASES)
def test_losses_are_computed_in_fp32_under_bf16_autocast(case):
    loss, _, count, settings = CASES[case]
    tensors = rows(count, 5, 7, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside, low = loss(*tensors, **settings), loss(*(t.bfloat16() for t in tensors), **settings)
    assert inside.dtype == low.dtype == torch.float32
    torch.testing.assert_close(inside, loss(*tensors, **settings), rtol=0, atol=0)
