"""Representation metrics: collapse, rank, spectrum, alignment and uniformity of features, without labels.

Pure functions of features, one row per image. Constant features have the worst value of every metric.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# A run that learns has a std near 1 and a rank of dozens, far above both thresholds.
COLLAPSED_STD = 0.05
COLLAPSED_RANK = 1.5
WORST_ALPHA = 10.0
_RANKME_ROWS = 2_048  # embeddings, at most, of the rank
_SPECTRUM_ROWS = 1_024  # of the spectrum
_PAIRED_IMAGES = 512  # images, at most, of the metrics of two views
_ROUNDING = 1e-12  # eigenvalues below this share of the total are zero


def measure(z: Tensor, images: int) -> dict[str, float]:
    """Return all metrics of a batch's embeddings M×D, by name.

    images: number of images N in the batch; rows 0 … N−1 are their first views, rows N … 2N−1 their second ones.
    """
    count = min(images, len(z) // 2)
    first, second = (view[:_PAIRED_IMAGES] for view in (z[:count], z[count : 2 * count]))
    return measure_spectrum(z) | {
        "train/alignment": alignment(first, second),
        "train/uniformity": uniformity(first),
        "train/contrastive_top1": contrastive_top1(first, second),
    }


def measure_spectrum(z: Tensor) -> dict[str, float]:
    """Return the metrics that need one view only."""
    return {"train/rankme": rankme(z[:_RANKME_ROWS]), "train/alpha_req": alpha_req(z[:_SPECTRUM_ROWS])}


def feature_std(features: Tensor) -> float:
    """Mean standard deviation over the dimensions of unit features, times √D: near 1 is normal, 0 is collapse.

    features: N×D. Source: SimSiam (arXiv:2011.10566), section 4.1.
    """
    unit = F.normalize(features.float(), dim=1)
    return unit.std(0, unbiased=False).mean().item() * math.sqrt(features.shape[1])


def rankme(features: Tensor) -> float:
    """Effective rank: the exponential of the entropy of the normalised singular values, from 1 to min(N, D).

    features: N×D. Source: RankMe (arXiv:2210.02885), equation 1.
    """
    squares = _squared_singular_values(features.double())
    values = squares[squares > _ROUNDING * squares.sum()].sqrt()
    if not len(values):
        return 1.0
    return torch.exp(torch.special.entr(values / values.sum()).sum()).item()


def alpha_req(features: Tensor) -> float:
    """Exponent α of the power law j^-α by which the covariance's eigenvalues fall: near 1 is good, 10 the worst.

    features: N×D. Far above 1, few directions have all variance; far below, the spectrum is that of noise. The fit is
    a line through the logarithms of the positive eigenvalues, the j-th weighted by 1/j, so that the many small ones do
    not outweigh the large. Source: α-ReQ (Agrawal et al. 2022, arXiv:2202.05808), section 3.
    """
    x = features.double()
    values = _squared_singular_values(x - x.mean(0)).flip(0)
    values = values[values > _ROUNDING * x.pow(2).sum().to(values.device)]
    if len(values) < 2:
        return WORST_ALPHA
    rank = torch.arange(1, len(values) + 1, dtype=values.dtype, device=values.device)
    weight = (1 / rank) / (1 / rank).sum()
    u, v = rank.log(), values.log()
    u = u - (weight * u).sum()
    return min(WORST_ALPHA, -((weight * u * v).sum() / (weight * u * u).sum()).item())


def alignment(first: Tensor, second: Tensor) -> float:
    """Mean squared distance of positive pairs over that of negative pairs: 0 is best, 1 the worst.

    first, second: N×D, the views of the same images. Wang & Isola (arXiv:2005.10242) take the numerator alone, which
    is best for a collapsed network; relative to the negatives, collapse is the worst.
    """
    first, second = F.normalize(first.double(), dim=1), F.normalize(second.double(), dim=1)
    positives = (first - second).pow(2).sum(1).mean()
    count = len(first)
    squared = torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist").pow(2)
    negatives = (squared.sum() - squared.diagonal().sum()) / max(1, count * (count - 1))
    return min(1.0, (positives / negatives).item()) if negatives > 1e-12 else 1.0


def uniformity(features: Tensor) -> float:
    """log of the mean over pairs of exp(-2·squared distance) of unit features: the lower the better, 0 the worst.

    features: N×D with N of 2 or more. Source: Wang & Isola (arXiv:2005.10242), equation 8, t = 2.
    """
    distances = torch.pdist(F.normalize(features.double(), dim=1)).pow(2)
    return distances.mul(-2).exp().mean().log().item()


def contrastive_top1(first: Tensor, second: Tensor) -> float:
    """Share of the 2N views that are closer to their image's other view than to every other; a tie is a miss.

    first, second: N×D. A SimCLR run that learns is above 0.8.
    """
    count = len(first)
    unit = F.normalize(torch.cat([first, second]).float(), dim=1)
    similarity = unit @ unit.T  # 2N×2N
    other_view = torch.arange(2 * count, device=unit.device).roll(count)
    rows = torch.arange(2 * count, device=unit.device)
    positive = similarity[rows, other_view]
    similarity[rows, other_view] = -torch.inf
    similarity[rows, rows] = -torch.inf
    # The similarities of equal features may differ in their last bits.
    return (positive > similarity.amax(1) + 1e-6).float().mean().item()


def _squared_singular_values(x: Tensor) -> Tensor:
    """Squared singular values of float64 N×D, ascending, on the CPU.

    They are the eigenvalues of the smaller Gram matrix, which takes a fifth of the time of the singular values. A CPU
    finds them as fast as a GPU, of matrices of this size.
    """
    return torch.linalg.eigvalsh((x @ x.T if x.shape[0] < x.shape[1] else x.T @ x).cpu())


def is_collapsed(std: float, rank: float) -> bool:
    """Whether a `feature_std` and a `rankme` mean that every image has nearly the same features."""
    return not (std >= COLLAPSED_STD and rank >= COLLAPSED_RANK)
