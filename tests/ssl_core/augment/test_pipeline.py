"""The augmentation pipeline: reproducibility, distributions of parameters, and steps."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch import Tensor

import ssl_core.models.torchvision_ops  # noqa: F401 - must be imported before torchvision

# isort: split
import torchvision.transforms.functional as reference
from torchvision.transforms import RandomResizedCrop

from ssl_core import rng
from ssl_core.augment import colour
from ssl_core.augment.parameters import CONTRAST, NO_JITTER, ViewParameters, draw_parameters
from ssl_core.augment.pipeline import ViewMaker
from ssl_core.config import Views
from ssl_core.config.views import leave_out_colour, list_left_out
from ssl_core.data.image_batch import CanvasGroup, ImageBatch

EVERYTHING = Views(
    blur=0.5, solarize=0.3, rotation=15, shear=0.2, scale=(0.7, 1.2), translation=0.1, gamma=0.4, noise=0.1
)
NOTHING = Views(crop_area=None, flip=0, jitter=0, grey=0)


def photos(count: int, height: int = 32, width: int = 32) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, height, width, 3), dtype=torch.uint8, generator=generator)


def drawn(views: Views, count: int = 20_000, size: tuple[int, int] = (32, 32)) -> ViewParameters:
    keys = rng.keys(rng.stream(0, 0, 0), torch.arange(count))
    return draw_parameters(views, keys, torch.tensor([size]).float().expand(count, 2))


@pytest.mark.parametrize(("side", "threads"), [(8, 1), (16, 2), (24, 1), (32, 1), (32, 2)])
def test_a_view_has_the_same_bytes_in_every_batch_and_with_any_threads(side, threads):
    pixels, rows = photos(150), torch.arange(150) * 7
    maker = ViewMaker(EVERYTHING, side, seed=3)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        whole = maker(ImageBatch.of_pixels(pixels), rows, epoch=2, view=1)
        torch.set_num_threads(threads)
        for places in (torch.tensor([77]), torch.arange(149, -1, -1), torch.arange(3, 150, 2)):
            part = maker(ImageBatch.of_pixels(pixels[places]), rows[places], epoch=2, view=1)
            assert torch.equal(part, whole[places])
    finally:
        torch.set_num_threads(before)


def padded(indices: list[int], side: int, sizes: list[tuple[int, int]]) -> CanvasGroup:
    """Images of these sizes on square canvases."""
    canvas = torch.zeros(len(sizes), side, side, 3, dtype=torch.uint8)
    for image, photo, (height, width) in zip(canvas, photos(len(sizes), side, side), sizes, strict=True):
        image[:height, :width] = photo[:height, :width]
    return CanvasGroup(torch.tensor(indices), canvas, torch.tensor(sizes))


def test_images_of_several_sizes_do_not_depend_on_their_batch():
    group = padded([0, 1, 2, 3, 4], 64, [(40, 50), (64, 33), (40, 50), (64, 64), (50, 40)])
    batch, maker = ImageBatch((group,), 5), ViewMaker(EVERYTHING, 32, seed=0)
    whole = maker(batch, torch.arange(5), epoch=0, view=0)
    for place in range(5):
        alone = maker(batch.take(torch.tensor([place])), torch.tensor([place]), epoch=0, view=0)
        assert torch.equal(alone[0], whole[place])


def test_views_are_the_same_bytes_in_one_call_and_as_arranged_for_a_gpu():
    """On a GPU all canvases share a chunk; the plan is rendered here on the CPU."""
    groups = (
        padded([3, 0, 5], 64, [(40, 50), (64, 33), (40, 50)]),
        padded([1, 2, 4], 96, [(96, 50), (70, 96), (9, 80)]),
    )
    batch, rows, maker = ImageBatch(groups, 6), torch.arange(6) * 11, ViewMaker(EVERYTHING, 32, seed=0)
    wanted = torch.cat([maker(batch, rows, 1, view) for view in (1, 2, 3)])
    for device, chunks in (("cpu", 2), ("cuda", 1)):
        plan = maker.draw(batch, rows, 1, range(1, 4), torch.device(device))
        assert len(plan.chunks) == chunks
        assert torch.equal(maker.render(batch, plan), wanted)
    taken = batch.take(torch.tensor([4, 3, 0]))
    plan = maker.draw(taken, rows[[4, 3, 0]], 1, (2,), torch.device("cuda"))
    assert torch.equal(maker.render(taken, plan), wanted[6:12][[4, 3, 0]])


def test_seed_epoch_image_and_view_each_change_the_view():
    same = photos(1).expand(2, -1, -1, -1)
    rows = torch.tensor([0, 1])
    first = ViewMaker(Views(), 32, 0)(ImageBatch.of_pixels(same), rows, 0, 0)
    assert not torch.equal(first[0], first[1])
    for seed, epoch, view in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):
        assert not torch.equal(ViewMaker(Views(), 32, seed)(ImageBatch.of_pixels(same), rows, epoch, view)[0], first[0])


def test_views_are_floats_in_0_1_and_do_not_change_the_images():
    pixels = photos(64)
    copy = pixels.clone()
    made = ViewMaker(EVERYTHING, 20, 0)(ImageBatch.of_pixels(pixels), torch.arange(64), 0, 0)
    assert made.shape == (64, 3, 20, 20)
    assert made.dtype == torch.float32
    assert made.min() >= 0
    assert made.max() <= 1
    assert torch.equal(pixels, copy)


def test_a_view_without_augmentation_is_the_image():
    pixels = photos(3)
    made = ViewMaker(NOTHING, 32, 0)(ImageBatch.of_pixels(pixels), torch.arange(3), 0, 0)
    torch.testing.assert_close(made.permute(0, 2, 3, 1) * 255, pixels.float(), rtol=0, atol=1e-4)


def test_a_view_is_within_two_levels_of_pil_and_torchvision_with_the_same_parameters():
    pixels, rows = photos(60), torch.arange(60)
    parameters = draw_parameters(Views(), rng.keys(rng.stream(0, 0, 0), rows), torch.full((60, 2), 32.0))
    floats = pixels.permute(0, 3, 1, 2).float() / 255
    made = ViewMaker(Views(), 24, 0)(ImageBatch.of_pixels(pixels), rows, 0, 0)
    wanted = torch.stack([_reference(floats[row].numpy(), parameters, row) for row in range(60)])
    assert (made - wanted).abs().max() <= 2 / 255


def _reference(pixels: np.ndarray, parameters: ViewParameters, row: int) -> Tensor:
    """The crop by PIL and the colours by torchvision, on floats, without rounding between steps."""
    top, left, height, width = parameters.box[row].tolist()
    box = (left, top, left + width, top + height)
    channels = [Image.fromarray(channel).resize((24, 24), Image.Resampling.BILINEAR, box) for channel in pixels]
    image = torch.from_numpy(np.stack([np.asarray(channel) for channel in channels])).clamp(0, 1)
    if parameters.mirror[row]:
        image = image.flip(2)
    if (position := int(parameters.hue_position[row])) != NO_JITTER:
        blends = (reference.adjust_brightness, reference.adjust_contrast, reference.adjust_saturation)
        steps = [
            (blends[which], factor)
            for which, factor in zip(parameters.order[row].tolist(), parameters.factors[row].tolist(), strict=True)
        ]
        steps.insert(position, (reference.adjust_hue, parameters.hue[row].item()))
        for operation, amount in steps:
            image = operation(image, amount)
    return reference.rgb_to_grayscale(image, 3) if parameters.grey[row] else image


def test_crops_have_the_configured_area_and_ratio():
    box = drawn(Views(crop_area=(0.2, 1.0)), size=(96, 128)).box.double()
    top, left, height, width = box.unbind(1)
    area, ratio = height * width / (96 * 128), width / height
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= 96 + 1e-3).all()
    assert (left + width <= 128 + 1e-3).all()
    assert area.min() >= 0.2 - 1e-6
    assert ratio.min() >= 3 / 4 - 1e-6
    assert ratio.max() <= 4 / 3 + 1e-6


def test_crops_are_distributed_as_torchvisions():
    box = drawn(Views(crop_area=(0.2, 1.0)), size=(96, 128)).box.double()
    torch.manual_seed(0)
    image = torch.empty(3, 96, 128)
    wanted = torch.tensor(
        [RandomResizedCrop.get_params(image, [0.2, 1.0], [3 / 4, 4 / 3]) for _ in range(3000)], dtype=torch.float64
    )
    for column in range(4):
        for share in (0.1, 0.5, 0.9):
            assert abs(box[:, column].quantile(share) - wanted[:, column].quantile(share)) < 3


def test_small_crops_have_uniform_areas_and_positions():
    box = drawn(Views(crop_area=(0.1, 0.5)), size=(100, 100)).box.double()
    area = box[:, 2] * box[:, 3] / 10_000
    for share in (0.1, 0.5, 0.9):
        assert abs(area.quantile(share) - (0.1 + 0.4 * share)) < 0.01
        assert abs((box[:, 0] / (100 - box[:, 2])).quantile(share) - share) < 0.015


def test_a_crop_that_cannot_fit_is_the_largest_central_one():
    box = drawn(Views(crop_area=(1.0, 1.0)), count=100, size=(20, 60)).box
    torch.testing.assert_close(box, torch.tensor([0.0, 30 - 40 / 3, 20, 80 / 3]).expand(100, 4))


def test_flip_jitter_grey_and_blur_have_the_configured_probability():
    parameters = drawn(Views(flip=0.5, jitter=0.8, grey=0.2, blur=0.3))
    rates = (parameters.mirror, (parameters.hue_position != NO_JITTER).float(), parameters.grey, parameters.blur)
    for rate, wanted in zip(rates, (0.5, 0.8, 0.2, 0.3), strict=True):
        assert abs(rate.mean() - wanted) < 0.012


def test_all_24_orders_of_the_jitter_are_equally_likely():
    parameters = drawn(Views(jitter=1))
    code = parameters.hue_position * 100 + (parameters.order * torch.tensor([9, 3, 1])).sum(1)
    _, counts = code.unique(return_counts=True)
    assert len(counts) == 24
    assert (counts / len(code) * 24 - 1).abs().max() < 0.15


def test_factors_and_hue_are_uniform_on_their_ranges():
    parameters = drawn(Views(jitter_strength=0.5, brightness=0.8, contrast=0.4, saturation=0.8, hue=0.2))
    for operation, spread in ((0, 0.4), (1, 0.2), (2, 0.4)):
        factors = parameters.factors[parameters.order == operation]
        assert 1 - spread <= factors.min() < 1 - spread + 0.001
        assert 1 + spread - 0.001 < factors.max() <= 1 + spread
        assert abs(factors.mean() - 1) < 0.005
    assert -0.1 <= parameters.hue.min() < -0.0995
    assert 0.0995 < parameters.hue.max() <= 0.1


def test_a_brightness_factor_is_never_negative():
    assert drawn(Views(jitter_strength=2, brightness=1)).factors.min() >= 0


def test_an_augmentation_does_not_change_the_draws_of_others():
    plain, blurred = drawn(Views(), 100), drawn(Views(blur=1, rotation=20, noise=0.1), 100)
    assert torch.equal(plain.box, blurred.box)
    assert torch.equal(plain.factors, blurred.factors)


def test_the_affine_map_inverts_shear_scale_rotation_and_translation():
    views = Views(rotation=30, shear=0.3, scale=(0.5, 1.5), translation=0.2)
    a, b, c, d, e, f = drawn(views, 500).affine.double().unbind(1)
    # The area grows by zoom² for any shear, rotation and translation.
    zoom = (a * e - b * d).rsqrt()
    assert 0.5 - 1e-3 <= zoom.min() < 0.52
    assert 1.48 < zoom.max() <= 1.5 + 1e-3
    # The image's centre (0, 0 in the input) comes to within a fifth of the side from the middle.
    determinant = a * e - b * d
    x, y = (b * f - e * c) / determinant, (d * c - a * f) / determinant
    assert max(x.abs().max(), y.abs().max()) <= 0.4 + 1e-3
    assert min(x.abs().max(), y.abs().max()) > 0.38


def test_noise_has_the_configured_standard_deviation():
    grey = torch.full((50, 32, 32, 3), 128, dtype=torch.uint8)
    noisy = ViewMaker(NOTHING.model_copy(update={"noise": 0.1}), 32, 0)(
        ImageBatch.of_pixels(grey), torch.arange(50), 0, 0
    )
    assert abs(noisy.std() - 0.1) < 0.002
    assert abs(noisy.mean() - 128 / 255) < 0.002


def test_noise_is_independent_of_the_other_draws():
    grey, rows = torch.full((500, 8, 8, 3), 128, dtype=torch.uint8), torch.arange(500)
    noisy = ViewMaker(NOTHING.model_copy(update={"noise": 0.05}), 8, 0)(ImageBatch.of_pixels(grey), rows, 0, 0)
    noise = (noisy.flatten(1) - 128 / 255) / 0.05
    half = noise.shape[1] // 2  # a pair of normals of one word is so far apart
    words = torch.exp(-(noise[:, :half].square() + noise[:, half:].square()) / 2)  # uniform again, by Box-Muller
    chosen = rng.uniforms(rng.keys(rng.stream(0, 0, 0), rows), half)
    together = torch.corrcoef(torch.cat([words.T.double(), chosen.T]))[:half, half:]
    assert together.abs().max() < 0.3


def test_the_global_generator_is_not_used():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    ViewMaker(EVERYTHING, 16, 0)(ImageBatch.of_pixels(photos(4)), torch.arange(4), 0, 0)
    assert torch.equal(torch.rand(3), expected)


def test_solarizing_inverts_values_above_a_half_of_the_drawn_images():
    pixels, rows = photos(200), torch.arange(200)
    plain = ViewMaker(NOTHING, 32, 0)(ImageBatch.of_pixels(pixels), rows, 0, 0)
    made = ViewMaker(NOTHING.model_copy(update={"solarize": 0.2}), 32, 0)(ImageBatch.of_pixels(pixels), rows, 0, 0)
    images = [Image.fromarray(image.numpy()) for image in pixels]
    turned = torch.stack([torch.from_numpy(np.array(ImageOps.solarize(image, 128))) for image in images])
    turned = turned.permute(0, 3, 1, 2) / 255
    chosen = (made != plain).flatten(1).any(1)
    assert 0.1 < chosen.float().mean() < 0.3
    torch.testing.assert_close(made[chosen], turned[chosen], rtol=0, atol=1e-6)
    assert torch.equal(made[~chosen], plain[~chosen])


def test_brightness_may_be_added_and_contrast_have_its_own_range():
    added = NOTHING.model_copy(
        update={"jitter": 1.0, "jitter_strength": 1.0, "brightness": 0.5, "brightness_added": True}
        | {"contrast": 0.0, "saturation": 0.0, "hue": 0.0}
    )
    offset = drawn(added).offset
    assert offset.min() == pytest.approx(-0.5, abs=1e-3)
    assert offset.max() == pytest.approx(0.5, abs=1e-3)
    grey = torch.full((50, 8, 8, 3), 100, dtype=torch.uint8)
    made = ViewMaker(added, 8, 0)(ImageBatch.of_pixels(grey), torch.arange(50), 0, 0)
    keys = rng.keys(rng.stream(0, 0, 0), torch.arange(50))
    wanted = draw_parameters(added, keys, torch.full((50, 2), 8.0)).offset.add(100 / 255).clamp(0, 1)
    torch.testing.assert_close(made, wanted[:, None, None, None].expand_as(made), rtol=0, atol=1e-6)

    ranged = NOTHING.model_copy(update={"jitter": 1.0, "jitter_strength": 0.1, "contrast_range": (0.1, 0.9)})
    parameters = drawn(ranged)
    factors = parameters.factors[parameters.order == CONTRAST]
    assert factors.min() == pytest.approx(0.1, abs=1e-3)
    assert factors.max() == pytest.approx(0.9, abs=1e-3)


@pytest.mark.skipif(shutil.which("c++") is None, reason="Inductor compiles C++ on a CPU")
def test_compiled_colours_are_those_of_the_plain_operations(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    views, rows = EVERYTHING.model_copy(update={"brightness_added": True}), torch.arange(24)
    for asked in (EVERYTHING, views, NOTHING):
        expected = ViewMaker(asked, 16, 0)(ImageBatch.of_pixels(photos(24)), rows, 0, 0)
        made = ViewMaker(asked, 16, 0, is_compiled=True)(ImageBatch.of_pixels(photos(24)), rows, 0, 0)
        assert (made - expected).abs().max() <= 1 / 255


def bands(count: int, channels: int, side: int = 32) -> Tensor:
    generator = torch.Generator().manual_seed(channels)
    return torch.randint(0, 256, (count, side, side, channels), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("channels", [1, 2, 5, 16])
def test_views_of_other_channels_have_the_same_bytes_in_every_batch_and_with_any_threads(channels):
    pixels, rows, before = bands(70, channels), torch.arange(70) * 7, torch.get_num_threads()
    maker = ViewMaker(EVERYTHING, 24, seed=3, channels=channels)
    try:
        torch.set_num_threads(1)
        whole = maker(ImageBatch.of_pixels(pixels), rows, epoch=2, view=1)
        torch.set_num_threads(2)
        assert whole.shape == (70, channels, 24, 24)
        assert 0 <= whole.min() < whole.max() <= 1
        for places in (torch.tensor([33]), torch.arange(69, -1, -1)):
            assert torch.equal(maker(ImageBatch.of_pixels(pixels[places]), rows[places], 2, 1), whole[places])
    finally:
        torch.set_num_threads(before)
    plan = maker.draw(ImageBatch.of_pixels(pixels), rows, 2, (1,), torch.device("cuda"))
    assert torch.equal(maker.render(ImageBatch.of_pixels(pixels), plan), whole)


def test_each_channel_of_other_images_than_rgb_is_augmented_as_if_it_were_alone():
    views, rows, pixels = EVERYTHING.model_copy(update={"noise": 0.0}), torch.arange(40), bands(40, 5)
    made = ViewMaker(views, 24, 1, channels=5)(ImageBatch.of_pixels(pixels), rows, 0, 0)
    alone = ViewMaker(views, 24, 1, channels=1)
    for channel in range(5):
        wanted = alone(ImageBatch.of_pixels(pixels[..., channel : channel + 1].contiguous()), rows, 0, 0)
        torch.testing.assert_close(made[:, channel : channel + 1], wanted, rtol=0, atol=1e-5)


def test_other_images_than_rgb_have_the_geometry_and_brightness_of_rgb_but_no_saturation_hue_and_grey():
    """An image of three equal channels has no colour, so all of RGB's operations leave it as these do."""
    grey, rows = bands(60, 1), torch.arange(60)
    rgb = ViewMaker(Views(blur=0.5), 24, 0)(ImageBatch.of_pixels(grey.expand(-1, -1, -1, 3).contiguous()), rows, 0, 0)
    for channels in (1, 4):
        maker = ViewMaker(Views(blur=0.5), 24, 0, channels=channels)
        made = maker(ImageBatch.of_pixels(grey.expand(-1, -1, -1, channels).contiguous()), rows, 0, 0)
        torch.testing.assert_close(made, rgb[:, :1].expand_as(made), rtol=0, atol=1e-5)
    of_colour = Views(jitter=1, grey=1, brightness=0, contrast=0, crop_area=None, flip=0)
    made = ViewMaker(of_colour, 32, 0, channels=5)(ImageBatch.of_pixels(bands(9, 5)), torch.arange(9), 0, 0)
    torch.testing.assert_close(made.permute(0, 2, 3, 1) * 255, bands(9, 5).float(), rtol=0, atol=1e-4)


def test_the_contrast_of_other_images_than_rgb_is_about_each_channels_own_mean():
    images = bands(3, 5).permute(0, 3, 1, 2).float() / 255 * 0.5 + 0.25
    factor = torch.tensor([0.2, 0.7, 1.4])
    made = colour.blend_(images.clone(), factor, 1 - factor, torch.zeros(3))
    mean = images.mean((2, 3), keepdim=True)
    wanted = mean + factor[:, None, None, None] * (images - mean)
    torch.testing.assert_close(made, wanted.clamp(0, 1), rtol=0, atol=1e-6)


def test_options_that_do_not_apply_are_listed():
    assert list_left_out(Views(), 3) == []
    assert list_left_out(Views(), 5) == ["saturation", "hue", "grey"]
    assert list_left_out(Views(jitter=0), 1) == ["grey"]
    assert list_left_out(Views(grey=0, hue=0), 2) == ["saturation"]
    assert list_left_out(Views(grey=0, jitter_strength=0), 2) == []
    assert leave_out_colour(Views(), 3) == Views()
    assert list_left_out(leave_out_colour(Views(), 5), 5) == []


@pytest.mark.skipif(shutil.which("c++") is None, reason="Inductor compiles C++ on a CPU")
@pytest.mark.parametrize("channels", [1, 5])
def test_compiled_colours_of_other_channels_are_those_of_the_plain_operations(tmp_path, monkeypatch, channels):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    asked, rows = EVERYTHING.model_copy(update={"brightness_added": True}), torch.arange(8)
    images = ImageBatch.of_pixels(bands(8, channels, 16))
    expected = ViewMaker(asked, 16, 0, channels=channels)(images, rows, 0, 0)
    made = ViewMaker(asked, 16, 0, channels=channels, is_compiled=True)(images, rows, 0, 0)
    assert (made - expected).abs().max() <= 1 / 255
