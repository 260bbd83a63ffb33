"""View plans: the random parameters of a batch's views, drawn on the CPU and arranged for the device.

A plan is copied to a GPU at once, from pinned memory: a copy of its own for each parameter would make the host wait for
all earlier work each time. How many images are blurred, or where hue comes first, is known on the host, so nothing is
read back from the device.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from ssl_core.augment.parameters import BRIGHTNESS, CONTRAST, NO_JITTER, SATURATION, ViewParameters
from ssl_core.config.views import RGB
from ssl_core.data.image_batch import ImageBatch
from ssl_core.device import send_together

# The size of a chunk in pixels. On a CPU of the images or the views: its tensors stay in the cache. On a GPU of the
# views, so that their number does not depend on the images, as the compiler wants it: they take less than 2 GiB. With
# more channels than RGB there are fewer of them on a GPU.
_CPU_CHUNK_PIXELS, _GPU_CHUNK_PIXELS = 64 * 32 * 32, 256 * 224 * 224
_CHUNK_IMAGES = 16  # at least
_WIDTHS = {
    "box": 4,
    "mirror": 1,
    "size": 2,  # the image's true height and width
    "hue": 1,
    "keep": 3,  # `keep`, `mean_share` and `grey_share` of the three blends, in order of application
    "mean_share": 3,
    "grey_share": 3,
    "added": 3,  # to all channels, before each blend
    "sigma": 1,
    "gamma": 1,
    "affine": 6,
    "hue_position": 1,
    "grey": 1,
}
_ENDS = torch.tensor(list(_WIDTHS.values())).cumsum(0).tolist()
_COLUMNS = {name: slice(end - width, end) for (name, width), end in zip(_WIDTHS.items(), _ENDS, strict=True)}


@dataclass(frozen=True)
class Table:
    """The parameters of views, float32 n×30, by name."""

    values: Tensor

    def __getitem__(self, name: str) -> Tensor:
        """Return n×width; n where the width is 1."""
        column = self.values[:, _COLUMNS[name]]
        return column[:, 0] if _WIDTHS[name] == 1 else column

    def take(self, rows: Tensor) -> "Table":
        return Table(self.values.index_select(0, rows))


@dataclass(frozen=True)
class Part:
    """The views of a chunk whose images are on one canvas."""

    group: int  # of the batch
    pixels: Tensor  # int64 n: the images' rows in the group's pixels
    members: Tensor | None  # int64 n: the views' positions in the chunk; None: the chunk has no other part


@dataclass(frozen=True)
class Chunk:
    """Views that are made together, ordered by the position of hue, so that each position is a slice."""

    table: Table
    parts: tuple[Part, ...]
    target: Tensor  # int64 n: the rows of the result
    hue_counts: tuple[int, ...]  # the number of views at each position of hue; the last are not jittered
    grey: Tensor  # int64: the positions in the chunk of the views that are turned grey
    blur: Tensor
    solarize: Tensor
    noise_keys: Tensor | None  # int64 n


@dataclass(frozen=True)
class Plan:
    """The chunks of `count` views."""

    chunks: tuple[Chunk, ...]
    count: int

    def to(self, device: torch.device) -> Self:
        """Return the plan on the device, after one copy; a GPU's is not waited for."""
        return _with_tensors(self, iter(send_together(list(_tensors(self)), device)))


def arrange(
    parameters: ViewParameters, noise_keys: Tensor | None, images: ImageBatch, side: int, device: torch.device
) -> Plan:
    """Return the plan, on the CPU, of V·N views of N images by view and then image, to be made on the device.

    side: of a view, in pixels.
    """
    count, hue_position = len(parameters.box), parameters.hue_position
    group_of, row_of = (found.repeat(count // len(images)) for found in images.locations)
    table = _build_table(parameters, images.sizes().repeat(count // len(images), 1))
    chunks = []
    for pool in _split_by_device(len(images.groups), group_of, device):
        order = pool[torch.argsort(hue_position[pool], stable=True)]
        for views in order.split(_chunk_size(images, group_of[order], side, device)):
            chunk = Chunk(
                table.take(views),
                _find_parts(group_of[views], row_of[views]),
                views,
                tuple(torch.bincount(hue_position[views], minlength=NO_JITTER + 1).tolist()),
                grey=_find_chosen(parameters.grey[views]),
                blur=_find_chosen(parameters.blur[views]),
                solarize=_find_chosen(parameters.solarize[views]),
                noise_keys=None if noise_keys is None else noise_keys[views],
            )
            chunks.append(chunk)
    return Plan(tuple(chunks), count)


def _find_chosen(flags: Tensor) -> Tensor:
    return flags.nonzero()[:, 0]


def _build_table(drawn: ViewParameters, sizes: Tensor) -> Table:
    columns = {
        "box": drawn.box,
        "mirror": drawn.mirror,
        "size": sizes,
        "hue": drawn.hue,
        "keep": drawn.factors,
        "mean_share": (1 - drawn.factors) * (drawn.order == CONTRAST),
        "grey_share": (1 - drawn.factors) * (drawn.order == SATURATION),
        "added": drawn.offset[:, None] * (drawn.order == BRIGHTNESS),
        "sigma": drawn.sigma,
        "gamma": drawn.gamma,
        "affine": drawn.affine,
        "hue_position": drawn.hue_position,
        "grey": drawn.grey,
    }
    return Table(torch.cat([columns[name].reshape(len(sizes), width) for name, width in _WIDTHS.items()], 1))


def _split_by_device(groups: int, group_of: Tensor, device: torch.device) -> Sequence[Tensor]:
    """The views that may share a chunk: on a CPU those of one canvas, on a GPU all, for the fewest kernels."""
    if device.type == "cpu" and groups > 1:
        return [(group_of == group).nonzero()[:, 0] for group in range(groups)]
    return [torch.arange(len(group_of))]


def _chunk_size(images: ImageBatch, group_of: Tensor, side: int, device: torch.device) -> int:
    """The number of views in a chunk of those whose groups are given."""
    if device.type != "cpu":
        channels = images.groups[0].pixels.shape[3]
        return max(_CHUNK_IMAGES, _GPU_CHUNK_PIXELS * RGB // max(RGB, channels) // side**2)
    canvases = (images.groups[group].pixels.shape for group in group_of.unique().tolist())
    largest = max(side**2, *(height * width for _, height, width, _ in canvases))
    return max(_CHUNK_IMAGES, _CPU_CHUNK_PIXELS // largest)


def _find_parts(group_of: Tensor, row_of: Tensor) -> tuple[Part, ...]:
    groups = group_of.unique().tolist()
    if len(groups) == 1:
        return (Part(groups[0], row_of, None),)
    members = [(group_of == group).nonzero()[:, 0] for group in groups]
    return tuple(Part(group, row_of[those], those) for group, those in zip(groups, members, strict=True))


def _tensors(item: Any) -> Iterator[Tensor]:
    """Yield the tensors in dataclasses and tuples, depth first."""
    if isinstance(item, Tensor):
        yield item
    elif isinstance(item, tuple):
        for each in item:
            yield from _tensors(each)
    elif is_dataclass(item):
        for field in fields(item):
            yield from _tensors(getattr(item, field.name))


def _with_tensors(item: Any, tensors: Iterator[Tensor]) -> Any:
    """Return the item with other tensors, in the order of `_tensors`."""
    if isinstance(item, Tensor):
        return next(tensors)
    if isinstance(item, tuple):
        return tuple(_with_tensors(each, tensors) for each in item)
    if is_dataclass(item) and not isinstance(item, type):
        return replace(item, **{f.name: _with_tensors(getattr(item, f.name), tensors) for f in fields(item)})
    return item
