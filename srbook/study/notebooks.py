"""The notebooks of the installed version."""

import json
from pathlib import Path

import srbook


def notebooks() -> dict[str, str]:
    """The chapters as notebooks without outputs: their files' texts by name, in the book's order.

    A wheel carries them inside the package; in a checkout they lie beside it. There each is paired with its source in
    `book/chapters`; here it is not, so that Jupyter saves nothing but the notebook. A copy of srbook without them
    raises FileNotFoundError.
    """
    package = Path(srbook.__file__).parent
    inside, checkout = package / "notebooks", package.parent
    folder = inside if inside.is_dir() or not (checkout / "pyproject.toml").is_file() else checkout / "notebooks"
    paths = sorted(folder.glob("*.ipynb"))
    if not paths:
        raise FileNotFoundError(f"this copy of srbook carries no notebooks (none in {folder}); install it from a wheel")
    return {path.name: _unpaired(path.read_text(encoding="utf-8")) for path in paths}


def _unpaired(text: str) -> str:
    content = json.loads(text)
    del content["metadata"]["jupytext"]
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"
