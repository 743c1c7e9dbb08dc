"""Finding the pictures in a folder, and what is in the way."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from srbook.data.io import IMAGE_SUFFIXES

_HIDDEN = (".", "__MACOSX")


@dataclass(frozen=True)
class Found:
    """What a search came upon.

    Attributes:
        files: the pictures, sorted by path.
        linked: links to folders, which are not followed: they may lead in circles, or out of the folder.
        unreadable: folders that cannot be read, and links and devices with a picture's name; with the reason.
    """

    files: list[Path] = field(default_factory=list)
    linked: list[Path] = field(default_factory=list)
    unreadable: dict[Path, str] = field(default_factory=dict)

    def remarks_on_links(self) -> list[str]:
        """A line for each of `linked`."""
        return [
            f"{path} is a link to a folder, which is not followed; name it to have its pictures" for path in self.linked
        ]

    def remarks(self) -> list[str]:
        """A line for each thing that is not among the files."""
        unreadable = [f"{path} is left out: {reason}" for path, reason in self.unreadable.items()]
        return [*self.remarks_on_links(), *unreadable]


def find_images(root: Path) -> Found:
    """All pictures in a folder and the folders inside it. Hidden files and folders are left out."""
    found = Found()

    def unreadable(error: OSError) -> None:
        found.unreadable[Path(error.filename)] = error.strerror or type(error).__name__

    for here, folders, files in os.walk(root, onerror=unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith(_HIDDEN))
        found.linked.extend(Path(here, name) for name in folders if os.path.islink(os.path.join(here, name)))
        for path in (Path(here, name) for name in files if not name.startswith(_HIDDEN)):
            if path.suffix.lower() not in IMAGE_SUFFIXES:
                continue
            if os.path.isfile(path):
                found.files.append(path)
            else:
                found.unreadable[path] = "a link that leads nowhere" if path.is_symlink() else "not a file"
    found.files.sort()
    return found
