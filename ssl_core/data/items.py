"""What readers of uploads yield: images, files that cannot be one, and findings about the upload."""

from collections.abc import Iterable
from dataclasses import dataclass

from ssl_core.data.clean_names import clean_text
from ssl_core.data.split_names import Split
from ssl_core.errors import Fault, json_pointer


@dataclass(frozen=True, slots=True)
class Item:
    """One file of a dataset. `name` is its clean path (`clean_names.clean_path`); without a `split`, split and label
    are parsed from the path. A label that is None, empty or negative means unlabelled.
    """

    name: str
    data: bytes
    label: str | int | None = None
    split: Split | None = None


@dataclass(frozen=True, slots=True)
class BadFile:
    """A file that cannot be part of the dataset, with the reason."""

    name: str
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Finding:
    """Something in the upload that is left out or uncertain: a warning in the report.

    `detail` is one sentence, the same for all findings of its code; `example` is what was found, such as a path or a
    column; `count` is the number of them.
    """

    code: str
    detail: str
    example: str = ""
    count: int = 1


Found = Item | BadFile | Finding  # what readers yield


class PackError(Exception):
    """Raised when the files cannot be packed; `errors` holds `{pointer, code, detail}` of up to 100 files."""

    def __init__(self, code: str, detail: str, faults: Iterable[BadFile] = ()) -> None:
        self.code = code
        self.detail = detail
        self.errors = [
            Fault(pointer=json_pointer("files", bad.name), code=bad.code, detail=bad.detail) for bad in faults
        ]
        super().__init__(detail)


class Warnings:
    """The findings of an upload, counted by code and sentence; the same in any order of arrival."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], _Counted] = {}

    def add(self, finding: Finding) -> None:
        """Count a finding, and keep the first examples of its code and sentence, in the order of the alphabet."""
        counted = self._found.setdefault((finding.code, finding.detail), _Counted([]))
        counted.count += finding.count
        example = clean_text(finding.example)
        if example and example not in counted.examples:
            counted.examples = sorted([*counted.examples, example])[:_EXAMPLES]

    def to_report(self) -> list[dict[str, object]]:
        """Return `{code, detail, count, examples}` for each, at most 100."""
        return [
            {"code": code, "detail": detail, "count": counted.count, "examples": counted.examples}
            for (code, detail), counted in sorted(self._found.items(), key=lambda found: found[0])[:_WARNINGS]
        ]


_EXAMPLES, _WARNINGS = 5, 100


@dataclass(slots=True)
class _Counted:
    examples: list[str]
    count: int = 0
