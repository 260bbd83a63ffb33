"""The report of an import: which network was found, and which tensors of the file were used."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ssl_core.config import Backbone

_MAX_CARD_NAMES = 100  # left-out tensors listed in a card
_MAX_TEXT_NAMES = 3  # and in the text


@dataclass(frozen=True)
class ImportReport:
    """What an importer used of a file; `left_out` has the file's names, `missing` ours."""

    backbone: Backbone
    matched: int  # tensors
    left_out: Sequence[str]
    values: int = 0  # numbers in the matched tensors
    head: tuple[int, ...] = ()  # width of each head layer
    layout: str = ""  # one of match_architecture.LAYOUTS
    prefix: str = ""
    missing: Sequence[str] = ()
    notes: Sequence[str] = ()

    def to_card(self) -> dict[str, Any]:
        """Return the fields of a card's `imported`."""
        return {
            "layout": self.layout,
            "prefix": self.prefix,
            "matched": self.matched,
            "missing": list(self.missing),
            "left_out": list(self.left_out[:_MAX_CARD_NAMES]),
            "left_out_count": len(self.left_out),
            "notes": list(self.notes),
        }

    def to_text(self) -> str:
        """Return the report as lines of text."""
        backbone, count = self.backbone, len(self.left_out)
        kernels = " with selective kernels" if backbone.selective_kernel else ""
        names = ", ".join(self.left_out[:_MAX_TEXT_NAMES]) + (", …" if count > _MAX_TEXT_NAMES else "")
        return (
            f"network: {backbone.name}{kernels}, width {backbone.width:g}, {backbone.stem} stem\n"
            f"head: {', '.join(map(str, self.head)) or 'none'}\n"
            f"read: {self.matched} variables, {self.values:,} values\n"
            f"left out: {count} variables{f' ({names})' if names else ''}"
        )
