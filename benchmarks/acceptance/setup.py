"""Setup: the device, the size and the folders of an acceptance run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

TINY_BACKBONE = {"name": "resnet10", "width": 0.125, "stem": "cifar_stride2"}


@dataclass(frozen=True)
class Setup:
    """What every stage is given."""

    device: str  # "cuda" or "cpu"
    tiny: bool  # small networks and few images, so that all stages run in a minute on a CPU
    images: Path | None  # an archive or a packed dataset; None: synthetic images are made
    out: Path
    epochs: int  # of the long run

    @property
    def data(self) -> Path:
        """The packed dataset of all stages."""
        is_packed = self.images is not None and (self.images / "dataset.json").is_file()
        if is_packed and self.images:
            return self.images
        synthetic = "synthetic-tiny" if self.tiny else "synthetic"
        return self.out / "packed" / (self.images.name if self.images else synthetic)

    @property
    def precision(self) -> str:
        return "bf16" if self.device == "cuda" else "fp32"

    @property
    def backbone(self) -> dict[str, Any]:
        return TINY_BACKBONE if self.tiny else {"name": "resnet18", "width": 1.0}

    @property
    def batch_size(self) -> int:
        """Images in a step of the stages that measure speed."""
        return 32 if self.tiny else 512

    def config(self, **fields: Any) -> dict[str, Any]:
        """Return the config of a SimCLR run at the images' own size, without online evaluation, with these fields."""
        config = {
            "kind": "pretrain",
            "method": {"name": "simclr"},
            "device": self.device,
            "precision": self.precision,
            "backbone": self.backbone,
            "batch_size": self.batch_size,
            "phases": [{"until": 1, "image_size": 16 if self.tiny else 32}],
            "evaluation": {"every_epochs": 0},
            "compile": False,
            "pictures": False,
        }
        return config | fields

    def goal(self, value: float) -> float | None:
        """Return the goal of a figure; None in a tiny run, which is to show that the stages work."""
        return None if self.tiny else value

    def accuracy_goal(self, value: float) -> float | None:
        """Return the goal of an accuracy, in percent; None for synthetic images too."""
        return self.goal(value) if self.images else None
