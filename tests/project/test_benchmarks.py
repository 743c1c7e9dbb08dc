"""The benchmark runner: it measures in turns, records, and says what it does not know."""

import json
import multiprocessing
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import srbook
from benchmarks.speed import __main__ as program
from benchmarks.speed import timing
from benchmarks.speed.entries import imresize
from benchmarks.speed.plain_ecdp import PlainECDP
from benchmarks.speed.plain_swin import PlainSwinUNet, wake
from benchmarks.speed.plain_unet import PlainUNet
from srbook.data import held_out_samples
from srbook.degradations import bicubic_downsample
from srbook.methods import ECDP
from srbook.networks import GuidedBlock, SwinUNet, UNet

ROOT = Path(__file__).parents[2]


def test_unknown_names_are_refused():
    command = [sys.executable, "-m", "benchmarks.speed", "speed"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    networks = "swin_sampling, swin_training, unet_sampling, unet_training"
    known = f"ecdp_sampling, ecdp_training, entropy, imresize, patches, {networks}, and all"
    assert done.returncode == 2 and f"no benchmark speed; there are {known}" in done.stderr


def test_contenders_take_turns():
    calls = []

    def run(name: str, milliseconds: float) -> float:
        calls.append(name)
        warming = len(calls) <= 4
        return 99.0 if warming else milliseconds / 1e3

    runs = [lambda: run("fast", 10), lambda: run("slow", 30)]
    fast, slow = timing.summarize([timing.Contender(name, None) for name in "ab"], timing.take_turns(runs, 5))
    assert calls == ["fast", "slow"] * 7
    assert (fast.median_ms, slow.median_ms, slow.ratio) == pytest.approx((10, 30, 3))


ENTRY = """
import os
from contextlib import contextmanager
from pathlib import Path
from benchmarks.speed.timing import Contender, Entry

LOG = Path(__file__).with_name("log")

def say(*words):
    with LOG.open("a") as file:
        print(*words, file=file)

@contextmanager
def within():
    say("in", os.getpid())
    try:
        yield
    finally:
        say("out", os.getpid())

def ours():
    say("ours", os.getpid())
    sum(range(100_000))

def peer():
    say("peer", os.getpid())
    PEER

def entry():
    return Entry("nothing", [Contender("ours", ours, "fast", within), Contender("peer", peer)])
"""


def write_entry(tmp_path, monkeypatch, peer: str):
    tmp_path.mkdir(exist_ok=True)
    (tmp_path / "some_entry.py").write_text(ENTRY.replace("PEER", peer))
    monkeypatch.syspath_prepend(str(tmp_path))


def measure(tmp_path, monkeypatch, peer: str):
    write_entry(tmp_path, monkeypatch, peer)
    return timing.measure("some_entry", 2)


def test_runs_and_records(tmp_path, monkeypatch, capsys):
    write_entry(tmp_path / "entries", monkeypatch, "sum(range(1_000_000))")
    monkeypatch.setattr(program, "HERE", tmp_path)
    monkeypatch.setattr(program, "ENTRIES", "entries")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["speed", "some_entry", "--rounds", "2", "--output", str(tmp_path)])
    program.main()
    printed = capsys.readouterr().out
    assert "median ms" in printed and "1.00x" in printed
    record = json.loads((tmp_path / "some_entry.json").read_text())
    assert record["threads"] == 1 and record["rounds"] == 2
    assert all(record[key] for key in ("date", "command", "commit", "machine", "cpu", "torch", "setting"))
    ours, *peers = record["results"]
    assert ours["ratio"] == 1 and all(peer["ratio"] == peer["median_ms"] / ours["median_ms"] for peer in peers)


def test_the_contenders_for_imresize_compute_the_same():
    """The entry compares them before they are timed."""
    assert [contender.run() is not None for contender in imresize.entry().contenders] == [True] * 4


def test_each_contender_has_a_process_and_stays_in_its_context(tmp_path, monkeypatch):
    setting, timings = measure(tmp_path, monkeypatch, "sum(range(1_000_000))")
    assert setting == "nothing"
    assert [(one.name, one.note) for one in timings] == [("ours", "fast"), ("peer", "")]
    assert timings[0].ratio == 1 and timings[1].ratio == timings[1].median_ms / timings[0].median_ms
    lines = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    assert [word for word, _ in lines] == ["in", *["ours", "peer"] * 4, "out"]
    processes = dict(lines)
    assert processes["in"] == processes["ours"] == processes["out"] != processes["peer"]


@pytest.mark.parametrize(
    ("peer", "message"),
    [("1 / 0", "ZeroDivisionError: division by zero"), ("os._exit(1)", "process of a contender died")],
)
def test_a_contender_that_fails_is_reported_and_all_processes_end(tmp_path, monkeypatch, peer, message):
    with pytest.raises(RuntimeError, match=message):
        measure(tmp_path, monkeypatch, peer)
    assert not multiprocessing.active_children()


def test_the_plain_network_is_the_same_network():
    """What the U-Net's benchmarks compare: equal values and equal gradients, in double precision."""
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


@pytest.mark.parametrize("as_released", [False, True])
def test_the_plain_swin_network_is_the_same_network(as_released):
    """With shifted windows at the first level, and without at the second, where training had one window."""
    torch.manual_seed(0)
    levels = {"width": 16, "multipliers": (1, 2), "blocks": 1, "attention": (0, 1), "groups": 8, "halvings": 1}
    swin = {"embedding": 16, "heads": 2, "window": 4, "ratio": 2, "size": 8, "as_released": as_released}
    net = wake(SwinUNet(**levels, **swin)).double()
    plain = PlainSwinUNet(net)
    x, condition = torch.randn(2, 3, 8, 16).double(), torch.randn(2, 3, 16, 32).double()
    t = torch.tensor([0.0, 7.0]).double()
    ours, theirs = net(x, t, condition), plain(x, t, condition)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-11)
    ours.square().sum().backward()
    theirs.square().sum().backward()
    for one, other in zip(net.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-9, atol=1e-9)


@pytest.fixture
def tiny_ecdp() -> ECDP:
    """In double precision, with the published kernel and scale, and with blocks that say something."""
    torch.manual_seed(0)
    network = {"width": 16, "multipliers": [1, 2], "blocks": [1, 1], "time_channels": 8}
    method = srbook.build("ecdp-tiny", sigma=0.2, kernel="torch", network=network).double()
    for block in method.network.modules():
        if isinstance(block, GuidedBlock):
            torch.nn.init.normal_(block.conv2.weight, std=0.02)
    method.begin("diffusion")
    return method


def test_the_plain_ecdp_is_the_same_method(tiny_ecdp):
    """What ECDP's benchmarks compare: equal losses, equal gradients, equal predictions, in double precision."""
    plain = PlainECDP(tiny_ecdp)
    hr, lr = torch.rand(2, 3, 16, 24, dtype=torch.float64), torch.rand(2, 3, 4, 6, dtype=torch.float64)
    t, noise = torch.rand(2, dtype=torch.float64), torch.randn(2, 3, 16, 24, dtype=torch.float64)
    ours = tiny_ecdp.losses(hr, tiny_ecdp.condition(lr), t, noise)["loss"]
    theirs = plain.loss(hr, lr, t, noise)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=0)
    ours.backward()
    theirs.backward()
    for part, other in ((tiny_ecdp.network, plain.net), (tiny_ecdp.encoder, plain.encoder)):
        for one, two in zip(part.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(one.grad, two.grad, rtol=1e-8, atol=1e-10)


def test_the_plain_ecdp_follows_the_same_flow(tiny_ecdp):
    """At a tight tolerance, from the same noise, both end at the same image."""
    lr, noise = torch.rand(1, 3, 4, 4, dtype=torch.float64), torch.randn(1, 3, 16, 16, dtype=torch.float64)
    tiny_ecdp.tolerance = 1e-6
    with torch.no_grad():
        ours = tiny_ecdp.flow(tiny_ecdp.condition(lr), noise)
    image, _ = PlainECDP(tiny_ecdp).sample(lr, noise, 1e-6)
    torch.testing.assert_close(ours.image, image, rtol=0, atol=1e-4)


def test_our_flow_takes_no_more_evaluations_than_the_published_one():
    """With the weights that ship, at the published tolerance, on a piece of a photograph that no training saw."""
    method = srbook.load("ecdp-small")
    cat = dict(held_out_samples().items())["chelsea"][..., 200:232, 100:132]
    lr, noise = bicubic_downsample(cat, 4), torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours = method.flow(method.condition(lr), noise)
    assert 20 < ours.nfe <= PlainECDP(method).sample(lr, noise)[1]
