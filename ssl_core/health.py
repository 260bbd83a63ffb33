"""Health of a representation: how far it is from collapse, without labels.

Pure functions of features, one row per image. Constant features score worst on every one of them.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# A healthy run stands near 1 and a rank of dozens; both limits are far below anything that still learns.
COLLAPSED_STD = 0.05
COLLAPSED_RANK = 1.5


def feature_std(features: Tensor) -> float:
    """Mean standard deviation over the dimensions of unit features, times √D: near 1 is healthy, 0 is collapse.

    features: N×D. Source: SimSiam (arXiv:2011.10566), section 4.1.
    """
    unit = F.normalize(features.float(), dim=1)
    return unit.std(0, unbiased=False).mean().item() * math.sqrt(features.shape[1])


def rankme(features: Tensor) -> float:
    """Effective rank: the exponential of the entropy of the normalised singular values, from 1 to min(N, D).

    features: N×D. Source: RankMe (arXiv:2210.02885), equation 1.
    """
    values = torch.linalg.svdvals(features.double())
    total = values.sum()
    if not total > 0:
        return 1.0
    share = values / total
    return torch.exp(torch.special.entr(share).sum()).item()


def alignment(first: Tensor, second: Tensor) -> float:
    """Mean squared distance between the two views of an image over that between images: 0 is best, 1 the worst.

    first, second: N×D, the views of the same images. Wang & Isola (arXiv:2005.10242) take the numerator alone, by
    which a collapsed network would be perfect; beside the distance of strangers it is the worst.
    """
    first, second = F.normalize(first.double(), dim=1), F.normalize(second.double(), dim=1)
    positives = (first - second).pow(2).sum(1).mean()
    count = len(first)
    everyone = torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist").pow(2)
    strangers = (everyone.sum() - everyone.diagonal().sum()) / max(1, count * (count - 1))
    return min(1.0, (positives / strangers).item()) if strangers > 1e-12 else 1.0


def uniformity(features: Tensor) -> float:
    """log of the mean over pairs of exp(-2·squared distance) of unit features: the lower the better, 0 the worst.

    features: N×D with N of 2 or more. Source: Wang & Isola (arXiv:2005.10242), equation 8, t = 2.
    """
    distances = torch.pdist(F.normalize(features.double(), dim=1)).pow(2)
    return distances.mul(-2).exp().mean().log().item()


def contrastive_top1(first: Tensor, second: Tensor) -> float:
    """Share of the 2N views that are closer to their image's other view than to every other; a tie is a miss.

    first, second: N×D. A healthy SimCLR run is above 0.8.
    """
    count = len(first)
    unit = F.normalize(torch.cat([first, second]).float(), dim=1)
    similarity = unit @ unit.T  # 2N×2N
    partner = torch.arange(2 * count, device=unit.device).roll(count)
    rows = torch.arange(2 * count, device=unit.device)
    positive = similarity[rows, partner]
    similarity[rows, partner] = -torch.inf
    similarity[rows, rows] = -torch.inf
    # Equal features may differ in the last bits of their products.
    return (positive > similarity.amax(1) + 1e-6).float().mean().item()


def collapsed(std: float, rank: float) -> bool:
    """Whether a `feature_std` and a `rankme` mean that every image has nearly the same features."""
    return not (std >= COLLAPSED_STD and rank >= COLLAPSED_RANK)
