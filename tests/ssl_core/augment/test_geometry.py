"""Crop, affine map and blur against PIL and torchvision with the same parameters."""

import numpy as np
import pytest
import torch
from PIL import Image

import ssl_core.models.torchvision_ops  # noqa: F401 - must be imported before torchvision

# isort: split
import torchvision.transforms.functional as reference

from ssl_core.augment import geometry


def photos(count: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def levels_apart(made: torch.Tensor, wanted: np.ndarray) -> float:
    return float((made.permute(0, 2, 3, 1) * 255 - torch.from_numpy(wanted).float()).abs().max())


def pil_crops(pixels: np.ndarray, boxes: list[list[float]], mirror: list[int], side: int) -> np.ndarray:
    crops = []
    for image, (top, left, height, width), flipped in zip(pixels, boxes, mirror, strict=True):
        box = (left, top, left + width, top + height)
        crop = Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR, box=box)
        crops.append(np.asarray(crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flipped else crop))
    return np.stack(crops)


@pytest.mark.parametrize("side", [8, 16, 32, 50])
def test_crops_are_within_two_levels_of_pil(side):
    pixels = photos(5, 32, 40)
    boxes = [[0, 0, 32, 40], [3.25, 10.5, 20.5, 17.75], [0, 0, 7.3, 9.1], [20.9, 30.1, 11.1, 9.9], [5, 5, 16, 16]]
    mirror = [0, 1, 0, 1, 1]
    made = geometry.crop(torch.from_numpy(pixels), torch.tensor(boxes), torch.tensor(mirror), side)
    assert levels_apart(made, pil_crops(pixels, boxes, mirror, side)) <= 2


def test_a_crop_of_the_whole_image_at_its_size_is_the_identity():
    pixels = photos(3, 8, 8)
    boxes = torch.tensor([[0.0, 0, 8, 8]]).expand(3, 4)
    made = geometry.crop(torch.from_numpy(pixels), boxes, torch.zeros(3), 8)
    assert levels_apart(made, pixels) < 1e-4


def test_padding_does_not_affect_a_crop():
    pixels = photos(2, 20, 24)
    boxes = torch.tensor([[0.0, 0, 20, 24], [11.5, 12.5, 8.5, 11.5]])
    plain = geometry.crop(torch.from_numpy(pixels), boxes, torch.zeros(2), 16)
    canvas = np.full((2, 32, 32, 3), 255, dtype=np.uint8)
    canvas[:, :20, :24] = pixels
    sizes = torch.tensor([[20, 24], [20, 24]])
    padded = geometry.crop(torch.from_numpy(canvas), boxes, torch.zeros(2), 16, sizes)
    torch.testing.assert_close(padded, plain, rtol=0, atol=1e-5)


def test_blur_equals_torchvision():
    images = torch.from_numpy(photos(4, 64, 64)).permute(0, 3, 1, 2).float() / 255
    sigma = torch.tensor([0.1, 0.7, 1.3, 2.0])
    wanted = torch.stack(
        [reference.gaussian_blur(image, [7, 7], [s, s]) for image, s in zip(images, sigma.tolist(), strict=True)]
    )
    torch.testing.assert_close(geometry.blur(images, sigma, 3), wanted, rtol=0, atol=1e-5)


def test_an_affine_map_is_within_two_levels_of_pil():
    # Smooth images: PIL rounds pixel centres differently.
    ramp = np.linspace(0, 1, 24)
    pixels = np.stack([np.outer(ramp, ramp), np.outer(ramp, 1 - ramp), np.outer(1 - ramp, ramp)], 2)
    image = Image.fromarray((pixels * 255).astype(np.uint8))
    turn = np.deg2rad(20)
    matrix = torch.tensor([[np.cos(turn), np.sin(turn), 0.1, -np.sin(turn), np.cos(turn), -0.2]]).float()
    a, b, c, d, e, f = matrix[0].double().tolist()
    # From coordinates on [-1, 1] to PIL's pixel coordinates, whose origin is the corner.
    data = (a, b, 12 * (c + 1 - a - b), d, e, 12 * (f + 1 - d - e))
    wanted = np.asarray(image.transform((24, 24), Image.Transform.AFFINE, data, Image.Resampling.BILINEAR))
    made = geometry.affine(torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255, matrix)
    inside = (slice(6, 18), slice(6, 18))
    apart = (made[0].permute(1, 2, 0).numpy() * 255 - wanted)[inside]
    assert np.abs(apart).max() <= 2


def test_pixels_outside_the_image_are_black():
    shifted = geometry.affine(torch.ones(1, 3, 8, 8), torch.tensor([[1.0, 0, 1, 0, 1, 0]]))
    assert torch.equal(shifted[0, 0, 0], torch.tensor([1.0] * 4 + [0.0] * 4))
