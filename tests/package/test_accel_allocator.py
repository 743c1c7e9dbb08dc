"""Keeping freed memory: fewer page faults, the same numbers, and the usual allocator afterwards."""

import subprocess
import sys
import threading

import pytest
import torch

import srbook.accel.allocator
from srbook.accel import keep_freed_memory

STEPS = """
import resource, torch
from contextlib import nullcontext
from srbook.accel import keep_freed_memory

def step():
    x = torch.ones(10 * 2**20)  # 40 MiB; glibc maps what exceeds 32
    return [x, x + 1, torch.cat([x, x]), x * 2]

def new_bytes(context):
    faults = []
    with context:
        for _ in range(10):
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            step()
            faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    return min(faults) * resource.getpagesize()  # a busy system may take pages away between two steps

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

new_bytes(nullcontext())
start = resident()
plain, kept = new_bytes(nullcontext()), new_bytes(keep_freed_memory())
print(plain, kept, resident() - start)
"""
BY_GLIBC = pytest.mark.skipif(srbook.accel.allocator._glibc() is None, reason="needs an untuned glibc")


@pytest.fixture
def calls(monkeypatch) -> list[tuple[int, ...]]:
    """What the C library is told; nothing reaches the real one."""
    told = []

    class Library:
        def mallopt(self, *arguments: int) -> None:
            told.append(arguments)

        def malloc_trim(self, pad: int) -> None:
            told.append(("trim", pad))

    monkeypatch.setattr(srbook.accel.allocator, "_glibc", Library)
    return told


KEEPING = [(-4, 0), (-1, 2**31 - 1)]
USUAL = [(-4, 65536), (-3, 32 * 2**20), (-1, 64 * 2**20), ("trim", 0)]


@BY_GLIBC
def test_pages_are_cleared_once_and_given_back_in_the_end():
    done = subprocess.run([sys.executable, "-c", STEPS], capture_output=True, text=True, check=True)
    plain, kept, growth = map(int, done.stdout.split())
    assert plain > 190 * 2**20  # a step's 200 MiB are new in each step
    assert kept < 2**20
    assert growth < 20 * 2**20


def test_results_stay_the_same():
    x = torch.randn(2, 8, 64, 64, generator=torch.Generator().manual_seed(0))
    layer = torch.nn.Conv2d(8, 8, 3)
    plain = layer(x).square().sum()
    with keep_freed_memory():
        kept = layer(x).square().sum()
    torch.testing.assert_close(plain, kept)


def test_only_the_outermost_context_counts(calls):
    with keep_freed_memory():
        assert calls == KEEPING
        with keep_freed_memory():
            pass
        assert calls == KEEPING
    assert calls == KEEPING + USUAL
    with keep_freed_memory():
        assert calls == KEEPING + USUAL + KEEPING


def test_an_error_ends_it(calls):
    with pytest.raises(ZeroDivisionError), keep_freed_memory():
        1 / 0  # noqa: B018
    assert calls == KEEPING + USUAL
    assert srbook.accel.allocator._depth == 0


def test_threads_that_overlap(calls):
    inside, go_on = threading.Event(), threading.Event()

    def other():
        with keep_freed_memory():
            inside.set()
            go_on.wait(10)

    thread = threading.Thread(target=other)
    with keep_freed_memory():
        thread.start()
        assert inside.wait(10)
    assert calls == KEEPING  # the other thread is still at work
    go_on.set()
    thread.join()
    assert calls == KEEPING + USUAL


@pytest.mark.parametrize("name", ["GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_"])
def test_what_the_user_tuned_stays(monkeypatch, name):
    monkeypatch.setenv(name, "1")
    assert srbook.accel.allocator._glibc() is None


@pytest.mark.parametrize("failure", [TypeError, OSError])
def test_nothing_happens_without_glibc(monkeypatch, failure):
    def load(name):
        raise failure

    monkeypatch.setattr(srbook.accel.allocator.ctypes, "CDLL", load)
    with keep_freed_memory():
        assert float(torch.ones(3).sum()) == 3
    monkeypatch.setattr(srbook.accel.allocator.ctypes, "CDLL", lambda name: object())  # another C library
    with keep_freed_memory():
        assert float(torch.ones(3).sum()) == 3
