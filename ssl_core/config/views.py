"""Views: the augmentation that makes them from an image, and the image sizes of a run."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ssl_core.config.fields import Auto, Closed, Fraction

RGB = 3  # channels of a colour image
_OF_COLOUR = ("saturation", "hue", "grey")  # options that apply to RGB alone


class Views(Closed):
    """Augmentation that makes a view of an image; parameters are drawn per sample, by (seed, epoch, image, view)."""

    num_views: Annotated[int, Field(ge=1, le=16)] | Auto = Field(
        "auto", description="Number of views of an image made this way; auto: 2, or 1 each in a list of several."
    )
    size: float = Field(
        1.0, ge=0.05, le=1, description="Side of the view as a share of the run's image size, as for local crops."
    )
    crop_area: tuple[Fraction, Fraction] | None = Field(
        (0.2, 1.0), description="Range of the crop's share of the image's area; null: no crop."
    )
    crop_ratio: tuple[float, float] = Field((3 / 4, 4 / 3), description="Range of the crop's width over height.")
    flip: Fraction = Field(0.5, description="Probability of a horizontal flip.")
    jitter: Fraction = Field(0.8, description="Probability of colour jitter.")
    jitter_strength: float = Field(
        0.5, ge=0, le=2, description="SimCLR's colour strength s; multiplies the four parts below."
    )
    brightness: float = Field(0.8, ge=0, le=1, description="Brightness is multiplied by 1 ± at most this.")
    brightness_added: bool = Field(
        False, description="Add to the brightness instead: up to ± that share of white (SimCLR's first version)."
    )
    contrast: float = Field(
        0.8,
        ge=0,
        le=1,
        description="Contrast is multiplied likewise, about the mean of the grey image; of other images than RGB about"
        " each channel's own mean.",
    )
    contrast_range: tuple[float, float] | None = Field(
        None, description="Range of the contrast's factor instead, independent of the strength."
    )
    saturation: float = Field(0.8, ge=0, le=1, description="Saturation is multiplied likewise; of RGB alone.")
    hue: float = Field(
        0.2, ge=0, le=0.5, description="Largest shift of the hue to either side; 1 is the full circle. Of RGB alone."
    )
    grey: Fraction = Field(0.2, description="Probability of conversion to greyscale; of RGB alone.")
    blur: Fraction = Field(0.0, description="Probability of a Gaussian blur whose kernel is a tenth of the side.")
    blur_sigma: tuple[float, float] = Field((0.1, 2.0), description="Standard deviation of the blur, in pixels.")
    solarize: Fraction = Field(0.0, description="Probability of solarization: values above a half are inverted.")
    rotation: float = Field(0.0, ge=0, le=180, description="Largest rotation to either side, in degrees.")
    shear: float = Field(0.0, ge=0, le=1, description="Largest horizontal shear to either side, as a slope.")
    scale: tuple[float, float] = Field(
        (1.0, 1.0), description="Range of the zoom about the centre; below 1 the image shrinks."
    )
    translation: float = Field(0.0, ge=0, le=1, description="Largest shift along each axis, as a share of the side.")
    gamma: float = Field(
        0.0, ge=0, le=2, description="Largest log of the gamma correction's exponent, drawn from exp(±gamma)."
    )
    noise: float = Field(
        0.0, ge=0, le=1, description="Standard deviation of additive Gaussian noise, on [0, 1] pixels."
    )

    @model_validator(mode="after")
    def _ranges_ascend(self) -> "Views":
        for name in ("crop_area", "crop_ratio", "blur_sigma", "scale", "contrast_range"):
            pair = getattr(self, name)
            if pair is not None and not 0.001 <= pair[0] <= pair[1] <= 10:
                raise ValueError(f"{name} must be two ascending numbers from 0.001 to 10")
        return self


ViewSets = Annotated[tuple[Views, ...], Field(min_length=1, max_length=16)]


def view_sets(views: Views | tuple[Views, ...]) -> tuple[Views, ...]:
    """Return one set for each kind of view, with its number of views resolved."""
    several = views if isinstance(views, tuple) else (views,)
    usual = 2 if len(several) == 1 else 1
    return tuple(each.model_copy(update={"num_views": usual}) if each.num_views == "auto" else each for each in several)


def leave_out_colour(views: Views, channels: int) -> Views:
    """Return the views that images of that number of channels have: of other than RGB, without colour's options."""
    return views if channels == RGB else views.model_copy(update=dict.fromkeys(_OF_COLOUR, 0.0))


def list_left_out(views: Views, channels: int) -> list[str]:
    """Return the options that are on, and do not apply to images of that number of channels."""
    has_jitter = views.jitter > 0 and views.jitter_strength > 0
    used = {
        "saturation": has_jitter and views.saturation > 0,
        "hue": has_jitter and views.hue > 0,
        "grey": views.grey > 0,
    }
    return [] if channels == RGB else [name for name in _OF_COLOUR if used[name]]


class PlainViews(Views):
    """The views of training with labels: crop and flip, and by default no colour augmentation."""

    num_views: Literal[1] = Field(1, description="One view of an image in each epoch.")
    jitter: Fraction = Field(0.0, description="Probability of colour jitter.")
    grey: Fraction = Field(0.0, description="Probability of conversion to greyscale; of RGB alone.")


class Phase(Closed):
    """A part of training at one image size; smaller sizes first make many more steps affordable."""

    until: float = Field(gt=0, le=1, description="Share of all steps at which the phase ends; the last is 1.")
    image_size: int = Field(ge=4, le=1024, description="Side of a view, in pixels.")


Phases = Annotated[tuple[Phase, ...], Field(min_length=1, max_length=16)]
