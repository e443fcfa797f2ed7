"""What is to be predicted: files, folders and patterns become a list of files, each with a name that no other has."""

import os
from collections.abc import Iterator, Sequence
from glob import glob, has_magic
from pathlib import Path
from typing import NamedTuple

from lungseg.data.dicom_file import is_dicom
from lungseg.data.folders import tell_unread
from lungseg.data.images import IMAGE_SUFFIXES, UNREAD_SUFFIXES
from lungseg.errors import UserError

RESULTS = ("masks", "infection_masks", "overlays", "dicom")  # Folders of the output, where inputs are never looked for.


class Input(NamedTuple):
    """One file."""

    id: str  # Path relative to the folder that holds all inputs, with forward slashes.
    path: Path

    @property
    def png(self) -> str:
        """Name of its results under `masks`, `infection_masks` and `overlays`."""
        return self.id if self.id.lower().endswith(".png") else f"{self.id}.png"

    def stamp(self) -> str:
        """Size and time of change: another one is another file."""
        status = self.path.stat()
        return f"{status.st_size}-{status.st_mtime_ns}"


def find_inputs(words: Sequence[str], output: Path) -> tuple[Path, list[Input]]:
    """List the files that are asked for, each once: the deepest folder that holds them all, and they, sorted by id.

    A file is taken whatever its name. Of a folder and those below it: what is named as an image, and DICOM files
    without such a name; hidden files and folders, DICOMDIR and the results in `output` are left out, as are, with a
    word, pictures of other kinds. Linked folders are followed, each folder once.

    Args:
        words: Paths of files or folders, or patterns (`*`, `?`, `[...]`, `**` for any folders).
        output: Where results go.

    Raises:
        FileNotFoundError: A word that matches nothing, or a folder without images.
        UserError: Two files whose results would bear one name, or files on two drives of Windows.
    """
    skipped = {_absolute(output / name) for name in RESULTS}
    folders: list[Path] = []
    paths: set[Path] = set()
    for path in (path for word in words for path in _matches(word)):
        images = list(_images_below(path, skipped)) if path.is_dir() else [path]
        if not images:
            raise FileNotFoundError(f"no images in {str(path)!r}: looked for {', '.join(IMAGE_SUFFIXES)}, and DICOM")
        folders.append(path if path.is_dir() else path.parent)
        paths.update(images)
    try:
        root = Path(os.path.commonpath(folders))
    except ValueError:  # two drives of Windows
        raise UserError(f"inputs have no folder in common: {', '.join(sorted(set(map(str, folders))))}") from None
    files = sorted(Input(path.relative_to(root).as_posix(), path) for path in paths)
    names: dict[str, Input] = {}
    for file in files:
        other = names.setdefault(file.png, file)
        if other is not file:
            raise UserError(f"results of {other.id!r} and {file.id!r} would bear one name; use two output folders")
    return root, files


def _matches(word: str) -> list[Path]:
    path = Path(word).expanduser()
    if path.exists():  # a file may be called `a[1].png`
        return [_absolute(path)]
    matches = sorted(glob(str(path), recursive=True)) if has_magic(word) else []  # noqa: PTH207 - takes any path
    if not matches:
        raise FileNotFoundError(f"no file, folder or pattern {word!r} here; the working folder is {Path.cwd()}")
    return [_absolute(Path(match)) for match in matches]


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100 - keeps links, drops `..`, unlike both methods of Path


def _images_below(folder: Path, skipped: set[Path]) -> Iterator[Path]:
    seen: set[str] = set()
    unread: list[str] = []
    for parent, folders, names in os.walk(folder, followlinks=True):
        here, place = Path(parent), os.path.realpath(parent)
        if place in seen:  # by a link that leads back, or to a folder that was here already
            folders.clear()
            continue
        seen.add(place)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and here / name not in skipped)
        for path in (here / name for name in names):
            is_image = path.is_file() and (path.suffix.lower() in IMAGE_SUFFIXES or is_dicom(path))
            if is_image and not path.name.startswith(".") and path.name.upper() != "DICOMDIR":
                yield path
            elif not is_image and path.name.lower().endswith(UNREAD_SUFFIXES) and not path.name.startswith("."):
                unread.append(path.relative_to(folder).as_posix())
    tell_unread(folder, unread)
