"""Image files that cannot be read, as a run has them: listed beside it, or left out of it for good."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from infopro.data._messages import one_line, quoted
from infopro.errors import BadImage
from infopro.training import RunFolder

__all__ = ["listing_bad_images", "skipped_before"]

HEADER = "# images that cannot be read, and why"


def skipped_before(path: Path) -> Mapping[str, str] | None:
    """What the run in this folder left out when it began; None where nobody has looked yet.

    Raises:
        BadRun: a record that cannot be read.
    """
    return RunFolder.open(path).record.get("skipped_images") if (path / "config.json").is_file() else None


@contextmanager
def listing_bad_images(path: Path) -> Iterator[None]:
    """Write an error's list of files beside the run folder that would have been, and say so.

    Raises:
        BadImage: as inside, its message naming the list.
    """
    try:
        yield
    except BadImage as error:
        also = "or leave them out: --on-bad-image skip"
        if len(error.files) > 1:
            also += f"; {_written(path.with_name(f'{path.name}.bad-images.txt'), error.files)}"
        raise BadImage(f"{error}, {also}", files=error.files) from error


def _written(file: Path, reasons: Mapping[str, str]) -> str:
    """Where the list is; a file that is no such list stays as it is."""
    lines = [f"{name!r}: {reason}" if reason else name for name, reason in sorted(reasons.items())]
    try:
        if file.exists() and not file.read_text(errors="replace").startswith(HEADER):
            return f"{quoted(file)} is no such list, and stays as it is"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join([HEADER, *lines, ""]), errors="backslashreplace")
    except OSError as error:
        return f"the list of all cannot be written ({one_line(error)})"
    return f"all are in {quoted(file)}"
