"""Colour operations against PIL and torchvision with the same parameters."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

import ssl_core.models.torchvision_ops  # noqa: F401 - must be imported before torchvision

# isort: split
import torchvision.transforms.functional as reference

from ssl_core.augment import colour

FACTORS = torch.tensor([0.2, 0.6, 0.95, 1.0, 1.3, 1.8])
TURNS = torch.tensor([-0.5, -0.2, -0.03, 0.0, 0.1, 0.37])


# keep, mean_share and grey_share of `blend_` for a factor.
BLENDS = {
    "brightness": lambda factor: (factor, 0 * factor, 0 * factor),
    "contrast": lambda factor: (factor, 1 - factor, 0 * factor),
    "saturation": lambda factor: (factor, 0 * factor, 1 - factor),
}


@pytest.fixture
def pixels() -> np.ndarray:
    """Smooth images with noise on them, uint8 6×24×20×3; the last is grey."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (6, 24, 20, 3), dtype=np.uint8)
    images[5] = images[5, :, :, :1]
    return images


def floats(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255


def levels_apart(made: torch.Tensor, images: list[Image.Image]) -> float:
    wanted = floats(np.stack([np.asarray(image) for image in images]))
    return float((made - wanted).abs().max() * 255)


@pytest.mark.parametrize(
    ("operation", "enhancer"),
    [
        ("brightness", ImageEnhance.Brightness),
        ("contrast", ImageEnhance.Contrast),
        ("saturation", ImageEnhance.Color),
    ],
)
def test_blends_are_within_two_levels_of_pil(pixels, operation, enhancer):
    made = colour.blend_(floats(pixels), *BLENDS[operation](FACTORS))
    wanted = [
        enhancer(Image.fromarray(image)).enhance(factor) for image, factor in zip(pixels, FACTORS.tolist(), strict=True)
    ]
    assert levels_apart(made, wanted) <= 2


@pytest.mark.parametrize(
    ("operation", "adjust"),
    [
        ("brightness", reference.adjust_brightness),
        ("contrast", reference.adjust_contrast),
        ("saturation", reference.adjust_saturation),
    ],
)
def test_blends_equal_torchvision_on_floats(pixels, operation, adjust):
    images = floats(pixels)
    wanted = torch.stack([adjust(image, factor) for image, factor in zip(images, FACTORS.tolist(), strict=True)])
    # torchvision rounds its grey weights to four digits.
    made = colour.blend_(images.clone(), *BLENDS[operation](FACTORS))
    torch.testing.assert_close(made, wanted, rtol=0, atol=3e-4)


def test_hue_equals_torchvision_on_floats(pixels):
    images = floats(pixels)
    wanted = torch.stack(
        [reference.adjust_hue(image, turn) for image, turn in zip(images, TURNS.tolist(), strict=True)]
    )
    torch.testing.assert_close(colour.adjust_hue_(images.clone(), TURNS), wanted, rtol=0, atol=2e-5)


def test_hue_keeps_value_and_chroma(pixels):
    images = floats(pixels)
    turned = colour.adjust_hue_(images.clone(), TURNS)
    torch.testing.assert_close(turned.amax(1), images.amax(1), rtol=0, atol=1e-6)
    torch.testing.assert_close(turned.amin(1), images.amin(1), rtol=0, atol=1e-6)


def test_a_third_of_a_turn_maps_red_to_green():
    red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
    green = colour.adjust_hue_(red.clone(), torch.tensor([1 / 3]))
    torch.testing.assert_close(green.flatten(), torch.tensor([0.0, 1.0, 0.0]), rtol=0, atol=1e-6)


def test_grey_is_within_a_level_of_pil(pixels):
    made = colour.compute_luma(floats(pixels))[:, None].expand(-1, 3, -1, -1)
    assert levels_apart(made, [Image.fromarray(image).convert("L").convert("RGB") for image in pixels]) <= 1


def test_gamma_is_a_power_and_keeps_black():
    images = torch.tensor([0.0, 0.25, 1.0]).expand(2, 3, 1, 3).clone()
    made = colour.adjust_gamma_(images, torch.tensor([0.5, 2.0]))
    torch.testing.assert_close(made[:, 0, 0], torch.tensor([[0.0, 0.5, 1.0], [0.0, 0.0625, 1.0]]))


def test_neutral_parameters_are_the_identity(pixels):
    images = floats(pixels)
    one, zero = torch.ones(6), torch.zeros(6)
    assert torch.equal(colour.blend_(images.clone(), one, zero, zero), images)
