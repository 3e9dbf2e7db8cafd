"""Copies the tree that this program runs from into a folder, such as a volume that another container mounts."""

import os
import shutil
import sys
from pathlib import Path


class InstallError(Exception):
    """The tree could not be copied; the message says why, and what to do."""


def own_tree() -> Path:
    """Return the tree that this program runs from."""
    tree = Path(sys.executable).resolve().parents[1]
    if not (tree / "bin" / "ropewalk-mcp-stdio").exists() or not (tree / "lib" / "native").is_dir():
        raise InstallError(
            f"this program runs with {sys.executable}, which belongs to no tree that could be copied; run `install` in "
            "the image ropewalk.dev/mcp-stdio"
        )
    return tree


def install(tree: Path, folder: Path) -> int:
    """Copy the tree's files into the folder, over what an earlier try has left there; return their bytes."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return sum(_copy(tree, path, folder) for path in tree.rglob("*") if path.is_file())
    except OSError as problem:
        raise InstallError(
            f"{problem.filename or folder}: {problem.strerror}; name a folder that user {os.getuid()} may write to, "
            "with 64 MiB of room"
        ) from None


def _copy(tree: Path, path: Path, folder: Path) -> int:
    to = folder / path.relative_to(tree)
    to.parent.mkdir(parents=True, exist_ok=True)
    to.unlink(missing_ok=True)
    try:
        os.link(path, to)
    except OSError:
        # Another file system, or the file belongs to somebody else.
        shutil.copyfile(path, to)
        to.chmod(path.stat().st_mode & 0o777)
    return path.stat().st_size
