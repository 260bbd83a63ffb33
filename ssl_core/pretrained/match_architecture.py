"""Matching of a state dict to a supported network, by the names and shapes of its tensors.

Supported are torchvision's names, which timm, MoCo, SimSiam, solo-learn and this project use, behind any prefix
(`module.encoder_q.`, `backbone.`, `state_dict.`); torchvision's ResNets as an `nn.Sequential` with numbered children,
as in lightly; and lightly's own ResNets, with named or numbered children. No tensor values are read.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ssl_core.config import TORCHVISIONS_OWN, Backbone, Stem
from ssl_core.config.architectures import RESNETS, TORCHVISION, find_first_weight
from ssl_core.config.reading import MAX_CHANNELS
from ssl_core.config.views import RGB
from ssl_core.errors import BadWeights, tensor_fault
from ssl_core.models import backbones

TensorShape = tuple[int, ...]

COUNTER = "num_batches_tracked"  # of a batch norm: unused in eval mode
_MAX_PREFIX = 6  # parts
_MIN_SHARE = 0.5  # of a network's weights, for a match
_AS_TORCHVISION: dict[str, Any] = {"layout": "torchvision", "selective_kernel": False, "zero_init_residual": False}
_MAX_WIDTH = 512  # channels of a first convolution: a width of 8
_WRAPPERS = re.compile(r"(?:(?<=\.)|^)(?:module|_orig_mod)\.")  # DataParallel's and torch.compile's
# Words in the prefix of an EMA copy of another network in the file, or of DINO's student.
_COPIES = frozenset({"momentum", "target", "ema", "key", "k", "student"})


@dataclass(frozen=True)
class MatchedArchitecture:
    """A supported network, and its weights' names: `names` maps our names to those in the file."""

    backbone: Backbone  # `zero_init_residual` is False: it applies to random weights only
    layout: str
    prefix: str
    names: dict[str, str]
    notes: tuple[str, ...]


def match_architecture(
    shapes: Mapping[str, TensorShape], backbone: str | None = None, stem: str | None = None
) -> MatchedArchitecture:
    """Return the network of these weights; backbone, stem: if known.

    Raises BadWeights when none matches, or when some of its weights are missing or of another shape.
    """
    views, found, nearest = list(_iterate_views(shapes)), list[_Match](), None
    for networks in (_iterate_resnets, _iterate_torchvision):
        found += [match for view in views for match in _iterate_matches(view, networks(view, backbone))]
        nearest = max(found, key=lambda match: (match.similarity, not match.is_copy), default=None)
        if nearest is not None and nearest.share == 1:
            break  # no network of torchvision, which takes seconds to import, is nearer
    if nearest is None or nearest.share < _MIN_SHARE:
        raise _build_unknown_error(shapes, backbone)
    same = [match for match in found if (match.network, match.view.layout) == (nearest.network, nearest.view.layout)]
    best = max(same, key=lambda match: (len(match.fitting), not match.is_copy, match.similarity))
    best.check()
    return best.to_architecture(shapes, stem)


@dataclass(frozen=True)
class _View:
    """The tensors behind a prefix, renamed from a layout: our name -> (name in the file, shape)."""

    prefix: str
    layout: str
    entries: dict[str, tuple[str, TensorShape]]


@dataclass(frozen=True)
class _Match:
    view: _View
    network: Backbone
    fitting: tuple[str, ...]  # names of the network's weights that match by name and shape

    @property
    def similarity(self) -> float:
        """Intersection over union of the weights of view and network."""
        counted = sum(not name.endswith(COUNTER) for name in self.view.entries)
        return len(self.fitting) / (len(_get_shapes(self.network)) + counted - len(self.fitting))

    @property
    def share(self) -> float:
        return len(self.fitting) / len(_get_shapes(self.network))

    @property
    def is_copy(self) -> bool:
        return not _COPIES.isdisjoint(re.split(r"[._]", self.view.prefix))

    def check(self) -> None:
        """Raise BadWeights, listing them, when weights of the network are missing or of another shape."""
        own, entries = _get_shapes(self.network), self.view.entries
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

    def to_architecture(self, shapes: Mapping[str, TensorShape], stem: str | None) -> MatchedArchitecture:
        stem, notes = self._select_stem(shapes, stem)
        norms = {f"{name.removesuffix('running_mean')}{COUNTER}" for name in self.fitting if "running_mean" in name}
        names = [*self.fitting, *sorted(norms & self.view.entries.keys())]
        theirs = {name: self.view.entries[name][0] for name in names}
        network = self.network.model_copy(update={"stem": stem})
        return MatchedArchitecture(network, self.view.layout, self.view.prefix, theirs, notes)

    def _select_stem(self, shapes: Mapping[str, TensorShape], known: str | None) -> tuple[str, tuple[str, ...]]:
        own = self.network.stem
        if "imagenet" in (own, known):
            if known not in (None, own):
                size = "7×7" if own == "imagenet" else "3×3"
                raise BadWeights("wrong_shape", f"The first convolution is {size}, so the stem is not {known}.")
            return own, ()
        if known is not None:
            return known, ()
        stem, reason = _guess_small_stem(self.view, shapes)
        return stem, (f"Weights do not determine stride and padding of a 3×3 stem: {stem} is assumed, {reason}.",)


# --- layouts ---------------------------------------------------------------------------------------------------------


def _rename_numbered(first_stage: int) -> Callable[[str], str | None]:
    """Return the renaming of a ResNet in an nn.Sequential, with its first stage at that number."""
    parts = {"0": "conv1", "1": "bn1"} | {str(first_stage + stage): f"layer{stage + 1}" for stage in range(4)}

    def rename(name: str) -> str | None:
        number, dot, rest = name.partition(".")
        return f"{parts[number]}.{rest}" if dot and number in parts else None

    return rename


def _rename_shortcuts(rename: Callable[[str], str | None]) -> Callable[[str], str | None]:
    """Return the renaming of a ResNet whose blocks have `shortcut` instead of `downsample`."""

    def rename_shortcut(name: str) -> str | None:
        ours = rename(name)
        return None if ours is None or ".downsample." in ours else ours.replace(".shortcut.", ".downsample.")

    return rename_shortcut


_LIGHTLYS_NUMBERED = "lightly_numbered"
LAYOUTS: dict[str, Callable[[str], str | None]] = {
    "torchvision": lambda name: name,
    "torchvision_numbered": _rename_numbered(4),  # after conv1, bn1, relu and maxpool
    "lightly": _rename_shortcuts(lambda name: name),
    _LIGHTLYS_NUMBERED: _rename_shortcuts(_rename_numbered(2)),
}


def _guess_small_stem(view: _View, shapes: Mapping[str, TensorShape]) -> tuple[str, str]:
    """Return the most likely 3×3 stem by the library of the names, and the reason."""
    if view.layout == _LIGHTLYS_NUMBERED:  # its ReLU is a function call and not a child
        return "cifar_no_relu", "as in lightly's numbered ResNet"
    classifier, found = re.subn(r"(?:(?<=\.)|^)(?:backbone|encoder)\.$", "classifier.weight", view.prefix)
    if found and view.layout == "torchvision" and classifier in map(_unwrap, shapes):
        return "cifar_padding2", "as in solo-learn, which has a classifier beside the backbone"
    return "cifar", "the most common one"


def _iterate_views(shapes: Mapping[str, TensorShape]) -> Iterator[_View]:
    behind: dict[str, dict[str, tuple[str, TensorShape]]] = defaultdict(dict)
    for name, shape in shapes.items():
        parts = _unwrap(name).split(".")
        for length in range(min(len(parts), _MAX_PREFIX + 1)):
            prefix = "".join(f"{part}." for part in parts[:length])
            behind[prefix][".".join(parts[length:])] = (name, shape)
    for prefix, entries in behind.items():
        for layout, rename in LAYOUTS.items():
            ours = {renamed: entry for name, entry in entries.items() if (renamed := rename(name)) is not None}
            if layout == "torchvision" or ours.keys() != entries.keys():
                yield _View(prefix, layout, ours)


def _unwrap(name: str) -> str:
    return _WRAPPERS.sub("", name)


# --- networks --------------------------------------------------------------------------------------------------------


def _iterate_matches(view: _View, networks: Iterable[Backbone]) -> Iterator[_Match]:
    for network in networks:
        own = _get_shapes(network)
        fitting = tuple(name for name, shape in own.items() if name in view.entries and view.entries[name][1] == shape)
        if fitting:
            yield _Match(view, network, fitting)


def _iterate_resnets(view: _View, backbone: str | None) -> Iterator[Backbone]:
    """Yield the ResNets with the view's first convolution, or the known one of them."""
    match view.entries.get("conv1.weight"):
        case (_, (planes, channels, height, width)) if (
            planes <= _MAX_WIDTH and channels <= MAX_CHANNELS and height == width and width in (3, 7)
        ):
            stem: Stem = "imagenet" if width == 7 else "cifar"
            for name in RESNETS if backbone is None else RESNETS.keys() & {backbone}:
                yield Backbone(name=name, width=planes / 64, stem=stem, channels=channels, **_AS_TORCHVISION)


def _iterate_torchvision(view: _View, backbone: str | None) -> Iterator[Backbone]:
    """Yield torchvision's other networks with the view's first weight, or the known one."""
    if view.layout != "torchvision":
        return
    for name in TORCHVISION:
        first = find_first_weight(name)
        if (backbone is None and first in view.entries and name not in RESNETS) or backbone == f"torchvision_{name}":
            channels = _get_channels(view.entries.get(first))
            yield Backbone.model_validate({"name": f"torchvision_{name}", "channels": channels, **TORCHVISIONS_OWN})


def _get_channels(first: tuple[str, TensorShape] | None) -> int:
    """The channels of an image, by the shape of a first convolution; those of RGB where it is missing or unlikely."""
    shape = first[1] if first is not None else ()
    return shape[1] if len(shape) == 4 and 1 <= shape[1] <= MAX_CHANNELS else RGB


@lru_cache
def _get_shapes(network: Backbone) -> dict[str, TensorShape]:
    """Return the shapes of the network's weights by name, without its counters."""
    with backbones.MetaTensors():
        weights = backbones.build(network).body.state_dict()
    return {name: tuple(value.shape) for name, value in weights.items() if not name.endswith(COUNTER)}


def _build_unknown_error(shapes: Mapping[str, TensorShape], backbone: str | None) -> BadWeights:
    network = backbone or "any supported network"
    prefixes = Counter(name.partition(".")[0] for name in shapes).most_common(5)
    seen = ", ".join(f"{name[:80]} ({count})" for name, count in prefixes)
    return BadWeights("unknown_network", f"The weights are not those of {network}. Their names begin with {seen}.")
