"""The benchmark runner: it measures in turns, records, and says what it does not know."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, BENCHMARKS / "run.py", *arguments], capture_output=True, text=True)


@pytest.mark.parametrize("name", ["imresize", "patches"])
def test_runs_and_records(tmp_path, name):
    done = run(name, "--rounds", "2", "--output", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "median ms" in done.stdout and "1.00x" in done.stdout
    record = json.loads((tmp_path / f"{name}.json").read_text())
    assert record["threads"] == 1 and record["rounds"] == 2
    assert all(record[key] for key in ("date", "command", "commit", "machine", "cpu", "torch", "setting"))
    ours, *peers = record["results"]
    assert ours["ratio"] == 1 and all(peer["ratio"] == peer["median_ms"] / ours["median_ms"] for peer in peers)


def test_unknown_names_are_refused():
    done = run("speed")
    assert done.returncode == 2 and "no benchmark speed; there are imresize, patches, and all" in done.stderr


def test_contenders_take_turns(monkeypatch):
    spec = importlib.util.spec_from_file_location("timing", BENCHMARKS / "timing.py")
    timing = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "timing", timing)  # dataclasses look their module up
    spec.loader.exec_module(timing)
    clock, calls = [0.0], []
    monkeypatch.setattr(timing.time, "process_time", lambda: clock[0])

    def worker(name: str, seconds: float):
        def work():
            calls.append(name)
            clock[0] += seconds

        return timing.Contender(name, work)

    fast, slow = timing.measure(timing.Entry("", [worker("fast", 0.01), worker("slow", 0.03)]), rounds=5)
    assert calls == ["fast", "slow"] * 7
    assert (fast.median_ms, slow.median_ms, slow.ratio) == pytest.approx((10, 30, 3))
