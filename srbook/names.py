"""Names of files as they are shown: on one line, and told apart."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path


def printable(text: str | os.PathLike[str]) -> str:
    r"""The text on one line that every terminal takes: what is not printable is escaped as Python does.

    File names may hold line breaks, control sequences, and bytes that are no text (`\udcff`).
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def told_apart(paths: Sequence[Path]) -> list[str]:
    """A name for each file, no two alike.

    That is the name without suffix. Where several have the same, it is the path below the folder that all files share,
    with the suffix only where nothing else tells them apart. The same file twice is a ValueError.
    """
    if len(set(paths)) < len(paths):
        twice, _ = Counter(paths).most_common(1)[0]
        raise ValueError(f"{printable(twice)} is named twice")
    folders = {os.path.abspath(path.parent) for path in paths}
    common = os.path.commonpath(folders) if folders else ""
    whole = [Path(os.path.relpath(os.path.abspath(path), common)) for path in paths]
    names = [path.stem for path in paths]
    for longer in ([path.with_suffix("").as_posix() for path in whole], [path.as_posix() for path in whole]):
        count = Counter(names)
        names = [name if count[name] == 1 else other for name, other in zip(names, longer, strict=True)]
    return names
