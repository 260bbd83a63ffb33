"""Recognition: from the names and shapes of somebody's weights to one of our networks.

Understood are torchvision's names, which timm, MoCo, SimSiam, solo-learn and this project keep, behind any prefix
(`module.encoder_q.`, `backbone.`, `state_dict.`); torchvision's ResNets as a numbered `nn.Sequential`, as lightly has
them; and lightly's own ResNets, whole or numbered. No tensor is looked at.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ssl_core.config import TORCHVISIONS_OWN, Backbone, Stem
from ssl_core.config.architectures import RESNETS, TORCHVISION, TORCHVISIONS_FIRST
from ssl_core.errors import BadWeights, tensor_fault
from ssl_core.models import backbones

TensorShape = tuple[int, ...]

COUNTER = "num_batches_tracked"  # of a batch norm: nothing in eval mode depends on it
_MOST_PREFIX = 6  # parts
_LEAST_SHARE = 0.5  # of a network's weights; below it the network is not recognised, only resembled
_AS_TORCHVISION: dict[str, Any] = {"layout": "torchvision", "selective_kernel": False, "zero_init_residual": False}
_MOST_WIDTH = 512  # channels of a first convolution: a width of 8
_WRAPPERS = re.compile(r"(?:(?<=\.)|^)(?:module|_orig_mod)\.")  # DataParallel's and torch.compile's
# Of two equal networks in one file the one whose prefix has such a word is the other's slow copy, or DINO's student.
_COPIES = frozenset({"momentum", "target", "ema", "key", "k", "student"})


@dataclass(frozen=True)
class MatchedArchitecture:
    """A network of ours, and where its weights are: `names` leads from our names to those in the file."""

    backbone: Backbone  # with `zero_init_residual` False: it says how random weights would start
    layout: str
    prefix: str
    names: dict[str, str]
    notes: tuple[str, ...]


def match_architecture(
    shapes: Mapping[str, TensorShape], backbone: str | None = None, stem: str | None = None
) -> MatchedArchitecture:
    """Return the network that these weights are of; `backbone` and `stem` say what is known of it.

    Raises BadWeights when there is none, or when some of its weights are missing or have another shape.
    """
    views, found, nearest = list(_views(shapes)), list[_Match](), None
    for networks in (_resnets, _torchvisions):
        found += [match for view in views for match in _matches(view, networks(view, backbone))]
        nearest = max(found, key=lambda match: (match.likeness, not match.is_copy), default=None)
        if nearest is not None and nearest.share == 1:
            break  # torchvision, which takes seconds to load, has none that is nearer
    if nearest is None or nearest.share < _LEAST_SHARE:
        raise _unknown(shapes, backbone)
    same = [match for match in found if (match.network, match.view.layout) == (nearest.network, nearest.view.layout)]
    best = max(same, key=lambda match: (len(match.fitting), not match.is_copy, match.likeness))
    best.check()
    return best.recognised(shapes, stem)


@dataclass(frozen=True)
class _View:
    """What stands behind a prefix, under the names that a layout gives it: ours -> (theirs, shape)."""

    prefix: str
    layout: str
    entries: dict[str, tuple[str, TensorShape]]


@dataclass(frozen=True)
class _Match:
    view: _View
    network: Backbone
    fitting: tuple[str, ...]  # of the network's names, those with the right shape

    @property
    def likeness(self) -> float:
        """How many weights both have, of those that either has."""
        counted = sum(not name.endswith(COUNTER) for name in self.view.entries)
        return len(self.fitting) / (len(_shapes(self.network)) + counted - len(self.fitting))

    @property
    def share(self) -> float:
        return len(self.fitting) / len(_shapes(self.network))

    @property
    def is_copy(self) -> bool:
        return not _COPIES.isdisjoint(re.split(r"[._]", self.view.prefix))

    def check(self) -> None:
        """Raise BadWeights, which names them, when weights of the network are missing or have another shape."""
        own, entries = _shapes(self.network), self.view.entries
        faults = [
            tensor_fault(self.view.prefix + name, "missing_weights", f"{self.network.name} needs it, {list(shape)}.")
            if name not in entries
            else tensor_fault(entries[name][0], "wrong_shape", f"Is {list(entries[name][1])}; {list(shape)} is needed.")
            for name, shape in own.items()
            if name not in self.fitting
        ]
        if faults:
            what = f"The weights are nearest to {self.network.name}, of which {len(faults)} do not fit"
            raise BadWeights(faults[0]["code"], f"{what}: {faults[0]['pointer']}: {faults[0]['detail']}", faults)

    def recognised(self, shapes: Mapping[str, TensorShape], stem: str | None) -> MatchedArchitecture:
        stem, notes = self._stem(shapes, stem)
        norms = {f"{name.removesuffix('running_mean')}{COUNTER}" for name in self.fitting if "running_mean" in name}
        names = [*self.fitting, *sorted(norms & self.view.entries.keys())]
        theirs = {name: self.view.entries[name][0] for name in names}
        network = self.network.model_copy(update={"stem": stem})
        return MatchedArchitecture(network, self.view.layout, self.view.prefix, theirs, notes)

    def _stem(self, shapes: Mapping[str, TensorShape], asked: str | None) -> tuple[str, tuple[str, ...]]:
        own = self.network.stem
        if "imagenet" in (own, asked):
            if asked not in (None, own):
                size = "7×7" if own == "imagenet" else "3×3"
                raise BadWeights("wrong_shape", f"The first convolution is {size}, so the stem is not {asked}.")
            return own, ()
        if asked is not None:
            return asked, ()
        told, why = _small_stem(self.view, shapes)
        return told, (f"Weights do not tell how a 3×3 stem strides and pads: {told} was taken, {why}.",)


# --- layouts ---------------------------------------------------------------------------------------------------------


def _numbered(first_stage: int) -> Callable[[str], str | None]:
    """The names of a ResNet whose children stand in an nn.Sequential, the first stage at that number."""
    parts = {"0": "conv1", "1": "bn1"} | {str(first_stage + stage): f"layer{stage + 1}" for stage in range(4)}

    def rename(name: str) -> str | None:
        number, dot, rest = name.partition(".")
        return f"{parts[number]}.{rest}" if dot and number in parts else None

    return rename


def _shortcuts(rename: Callable[[str], str | None]) -> Callable[[str], str | None]:
    """The names of a ResNet whose shortcuts are called so and not `downsample`."""

    def renamed(name: str) -> str | None:
        ours = rename(name)
        return None if ours is None or ".downsample." in ours else ours.replace(".shortcut.", ".downsample.")

    return renamed


_LIGHTLYS_NUMBERED = "lightly_numbered"
LAYOUTS: dict[str, Callable[[str], str | None]] = {
    "torchvision": lambda name: name,
    "torchvision_numbered": _numbered(4),  # after conv1, bn1, relu and maxpool
    "lightly": _shortcuts(lambda name: name),
    _LIGHTLYS_NUMBERED: _shortcuts(_numbered(2)),
}


def _small_stem(view: _View, shapes: Mapping[str, TensorShape]) -> tuple[str, str]:
    """What a 3×3 stem is, as far as the names tell who made it, and why."""
    if view.layout == _LIGHTLYS_NUMBERED:  # its ReLU is a function call, which a Sequential of children leaves out
        return "cifar_no_relu", "as lightly's ResNet has it when it is numbered"
    beside, found = re.subn(r"(?:(?<=\.)|^)(?:backbone|encoder)\.$", "classifier.weight", view.prefix)
    if found and view.layout == "torchvision" and beside in map(_unwrapped, shapes):
        return "cifar_padding2", "as solo-learn has it, whose classifier stands beside the backbone"
    return "cifar", "as is usual"


def _views(shapes: Mapping[str, TensorShape]) -> Iterator[_View]:
    behind: dict[str, dict[str, tuple[str, TensorShape]]] = defaultdict(dict)
    for name, shape in shapes.items():
        parts = _unwrapped(name).split(".")
        for length in range(min(len(parts), _MOST_PREFIX + 1)):
            prefix = "".join(f"{part}." for part in parts[:length])
            behind[prefix][".".join(parts[length:])] = (name, shape)
    for prefix, entries in behind.items():
        for layout, rename in LAYOUTS.items():
            ours = {renamed: entry for name, entry in entries.items() if (renamed := rename(name)) is not None}
            if layout == "torchvision" or ours.keys() != entries.keys():
                yield _View(prefix, layout, ours)


def _unwrapped(name: str) -> str:
    return _WRAPPERS.sub("", name)


# --- networks --------------------------------------------------------------------------------------------------------


def _matches(view: _View, networks: Iterable[Backbone]) -> Iterator[_Match]:
    for network in networks:
        own = _shapes(network)
        fitting = tuple(name for name, shape in own.items() if name in view.entries and view.entries[name][1] == shape)
        if fitting:
            yield _Match(view, network, fitting)


def _resnets(view: _View, backbone: str | None) -> Iterator[Backbone]:
    """Yield the ResNets that the view's first convolution can be of, or the one that was named."""
    match view.entries.get("conv1.weight"):
        case (_, (planes, 3, height, width)) if planes <= _MOST_WIDTH and height == width and width in (3, 7):
            stem: Stem = "imagenet" if width == 7 else "cifar"
            for name in RESNETS if backbone is None else RESNETS.keys() & {backbone}:
                yield Backbone(name=name, width=planes / 64, stem=stem, **_AS_TORCHVISION)


def _torchvisions(view: _View, backbone: str | None) -> Iterator[Backbone]:
    """Yield torchvision's other networks that begin like the view, or the one that was named."""
    if view.layout != "torchvision":
        return
    for name in TORCHVISION:
        first = next(first for family, first in TORCHVISIONS_FIRST.items() if name.startswith(family))
        if (backbone is None and first in view.entries and name not in RESNETS) or backbone == f"torchvision_{name}":
            yield Backbone.model_validate({"name": f"torchvision_{name}", **TORCHVISIONS_OWN})


@lru_cache
def _shapes(network: Backbone) -> dict[str, TensorShape]:
    """Return the shapes of the network's weights by name, without its counters."""
    with backbones.MetaTensors():
        weights = backbones.build(network).body.state_dict()
    return {name: tuple(value.shape) for name, value in weights.items() if not name.endswith(COUNTER)}


def _unknown(shapes: Mapping[str, TensorShape], backbone: str | None) -> BadWeights:
    what = backbone or "any network that is known here"
    most = Counter(name.partition(".")[0] for name in shapes).most_common(5)
    seen = ", ".join(f"{name[:80]} ({count})" for name, count in most)
    return BadWeights("unknown_network", f"The weights are not those of {what}. Their names begin with {seen}.")
