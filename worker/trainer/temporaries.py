"""Temporary files of attempts: names that start with a dot or end in `.tmp`, left by a killed trainer."""

from pathlib import Path


def remove(folder: Path) -> None:
    """Remove the temporary files of an attempt whose trainer has ended, and of the job's earlier attempts.

    `folder` is the attempt's, `a<number>`; its siblings are the job's other attempts.
    """
    number = int(folder.name[1:])
    for earlier in range(1, number + 1):
        for pattern in (".*", "*.tmp"):
            for path in folder.with_name(f"a{earlier}").rglob(pattern):
                if path.is_file():
                    path.unlink(missing_ok=True)
