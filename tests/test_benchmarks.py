"""The benchmark runner: it measures in turns, records, and says what it does not know."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from srbook.networks import UNet

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
    assert (
        done.returncode == 2
        and "no benchmark speed; there are entropy, imresize, patches, unet_sampling, unet_training, and all"
        in done.stderr
    )


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


def test_the_plain_network_is_the_same_network(monkeypatch):
    """What the U-Net's benchmarks compare: equal values and equal gradients, in double precision."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from plain_unet import PlainUNet

    torch.manual_seed(0)
    net = UNet(width=16, multipliers=(1, 2, 2), blocks=1, attention=(1,), groups=8, dropout=0.0).double()
    plain = PlainUNet(net)
    x, level = torch.randn(2, 6, 8, 12, dtype=torch.float64), torch.rand(2, dtype=torch.float64)
    ours, theirs = net(x, level), plain(x, level)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-11)
    ours.square().sum().backward()
    theirs.square().sum().backward()
    for one, other in zip(net.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-9, atol=1e-9)
    with torch.no_grad():  # where some operations work in place
        torch.testing.assert_close(net(x, level), theirs.detach(), rtol=0, atol=1e-11)
