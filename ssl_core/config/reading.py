"""How an upload is read: which layout, labels, pages, channels and range of values its images have."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ssl_core.config.fields import Auto, Closed

Layout = Literal["auto", "flat", "classes", "splits"]
Pages = Literal["first", "images", "channels"]
MAX_CHANNELS = 16

_Column = Annotated[str, Field(max_length=200, pattern=r"^[^\u0000-\u001f\u007f]*$")]  # no control characters


class Reading(Closed):
    """The options of an upload. With the defaults everything is found from the upload itself."""

    on_bad_file: Literal["reject", "skip"] = Field(
        "reject", description="Whether an unreadable image fails the dataset, or is skipped and reported."
    )
    strict: bool = Field(False, description="Whether a warning in the report fails the dataset.")
    layout: Layout = Field(
        "auto",
        description="What folders mean. flat: nothing; classes: the first is the class; splits: the first is the split"
        " and the next the class; auto: found from their names.",
    )
    label_column: _Column | None = Field(
        None, description="Column, array or field with the labels; null: found by its name."
    )
    split_column: _Column | None = Field(
        None, description="Column, array or field with the splits; null: found by its name."
    )
    pages: Pages = Field(
        "first",
        description="Of files with several pages or frames: the first, all as images, or all as channels of one image.",
    )
    channels: Annotated[int, Field(ge=1, le=MAX_CHANNELS)] | Auto = Field(
        "auto",
        description="Number of channels of each image. auto: 3 for greys and colours, and of images with other channels"
        " as many as they have.",
    )
    low: float | None = Field(
        None, description="Value that becomes black in images of more than 8 bits; null: found from the images."
    )
    high: float | None = Field(
        None, description="Value that becomes white in images of more than 8 bits; null: found from the images."
    )

    @model_validator(mode="after")
    def _check_range(self) -> Self:
        if (self.low is None) != (self.high is None):
            raise ValueError("low and high are given together.")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError("low must be less than high.")
        return self
