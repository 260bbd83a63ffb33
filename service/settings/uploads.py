"""Settings of uploads and imports."""

from pydantic import BaseModel, Field


class UploadSettings(BaseModel):
    """Limits of what is sent, and of the processes that read it."""

    max_upload_bytes: int = Field(64 * 2**30, gt=0)
    max_weights_bytes: int = Field(4 * 2**30, gt=0, description="Of an uploaded file of weights.")
    max_unpacked_bytes: int = Field(256 * 2**30, gt=0)
    max_unpack_ratio: float = Field(
        200,
        gt=1,
        description="Maximum ratio of unpacked bytes, and of pixels, to packed bytes; beyond it an upload is refused.",
    )
    max_images: int = Field(10_000_000, gt=0)
    max_image_bytes: int = Field(64 * 2**20, gt=0)
    max_image_pixels: int = Field(100_000_000, gt=0)
    ingest_memory_bytes: int = Field(8 * 2**30, gt=0, description="Address space of the ingestion process.")
    ingest_seconds: float = Field(6 * 3600, gt=0, description="CPU time of the ingestion process.")
    import_memory_bytes: int = Field(
        16 * 2**30, gt=0, description="Address space of the import process, in addition to that of torch."
    )
    import_seconds: float = Field(1800, gt=0, description="CPU time of the import process.")
