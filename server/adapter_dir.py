"""The folder that adapters may be loaded from while the server runs."""

from __future__ import annotations

import os
from pathlib import Path, PurePath

from server.errors import invalid


def resolve(root: Path, path: str) -> Path:
    """The folder `path` names below `root`, absolute and free of links.

    Raises a 400 that names `path` where it is no folder there, or where it or a file in it leads
    out: by its name or by a link.
    """
    if PurePath(path).is_absolute() or ".." in PurePath(path).parts:
        raise invalid("Invalid 'path': it must lie below the adapter folder, without '..'.", "path")
    root = Path(os.path.realpath(root))
    try:
        folder = (root / path).resolve(strict=True)
        found = [folder, *(entry.resolve() for entry in folder.iterdir())]
    except (OSError, ValueError, RuntimeError) as error:
        raise invalid(f"Invalid 'path': there is no adapter at '{path}'.", "path") from error
    if not all(place.is_relative_to(root) for place in found):
        raise invalid("Invalid 'path': it leads out of the adapter folder.", "path")
    return folder


def shown(root: Path | None, folder: str) -> str:
    """How a loaded adapter's folder is told: as it was asked for, where it lies below `root`."""
    if root is None or not Path(folder).is_relative_to(real := os.path.realpath(root)):
        return folder
    return str(Path(folder).relative_to(real))
