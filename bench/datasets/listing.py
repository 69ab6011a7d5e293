"""Which folders are classes, and which files in them are images."""

import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from ..api.errors import BadData, reason
from ..api.shared.path_names import printable

ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
_SYSTEM = {  # folders that file managers, archives and file systems make, in lower case
    "__macosx",
    "@eadir",
    "#recycle",
    "$recycle.bin",
    "system volume information",
    "lost+found",
    "__pycache__",
}


def class_folders(folder: Path) -> dict[str, Path]:
    """Return the class folders of a split, by the classes' names and in their order.

    Names are in Unicode's composed form, so that splits packed on different systems agree; bytes
    that are not UTF-8 are written as `\\xe9`.

    Raises: BadData when there are none, two have one name, or the folder cannot be read.
    """
    found: dict[str, Path] = {}
    for one in folders_in(folder):
        name = printable(unicodedata.normalize("NFC", one.name))
        if name in found:
            raise BadData(f"image folder {printable(folder)} holds two class folders '{name}'")
        found[name] = one
    if not found:
        raise BadData(f"image folder {printable(folder)} holds no class folders")
    return dict(sorted(found.items()))


def folders_in(folder: Path) -> list[Path]:
    """Return the folders in a folder that a person put there, sorted.

    Raises: BadData when it cannot be read.
    """
    return [folder / one.name for one in _entries(folder) if one.is_dir()]


def images_below(folder: Path) -> list[str]:
    """Return the images of a class folder, relative to the folder that holds it.

    They are in the order of torchvision's ImageFolder. Links are followed, but no folder is read
    twice, and none above the class folder.

    Raises: BadData when there are none, a folder cannot be read, or something with the ending of an
        image is no file.
    """
    above = {os.path.realpath(one) for one in folder.absolute().parents}
    found = sorted(_files(folder, above))
    if not found:
        raise BadData(
            f"class folder {printable(folder)} holds no images; their files end in "
            + ", ".join(ENDINGS)
        )
    base = folder.parent
    return [str(Path(place, name).relative_to(base)) for place, name in found]


def _files(folder: Path, seen: set[str]) -> Iterator[tuple[str, str]]:
    """Folder and name of each image. seen: real paths of the folders not to be read (again)."""
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    for one in _entries(folder):
        if one.is_dir():
            yield from _files(folder / one.name, seen)
        elif one.name.lower().endswith(ENDINGS):
            if not one.is_file():
                raise BadData(
                    f"image {printable(one.path)} is not a file: it is a pipe, a device or a link "
                    "to nothing"
                )
            yield str(folder), one.name


def _entries(folder: Path) -> list["os.DirEntry[str]"]:
    """What a folder holds, hidden and system entries aside, sorted by name."""
    try:
        with os.scandir(folder) as entries:
            shown = [one for one in entries if not _is_noise(one.name)]
    except OSError as error:
        why = reason(error)
        raise BadData(f"image folder {printable(folder)} cannot be read: {why}") from error
    return sorted(shown, key=lambda one: one.name)


def _is_noise(name: str) -> bool:
    return name.startswith(".") or name.lower() in _SYSTEM
