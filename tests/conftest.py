"""Where tests find numbers and images."""

from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def vectors() -> Path:
    """The folder of stored reference numbers."""
    return HERE / "vectors"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The development data beside the repository; users do not have it."""
    folder = HERE.parent.parent / "shared"
    if not folder.is_dir():
        pytest.skip("needs the development data in ../shared, which is not part of the repository")
    return folder
