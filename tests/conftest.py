"""Where tests find numbers and images, and how many threads they use."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: small tensors gain nothing from more, and wait for them

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


@pytest.fixture
def default_signals() -> Iterator[None]:
    """Python's own handling of what ends a process. Under nohup, or behind a shell, some of it is ignored."""
    defaults = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,
    }
    before = {number: signal.signal(number, handler) for number, handler in defaults.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
