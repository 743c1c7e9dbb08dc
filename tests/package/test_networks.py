"""Networks and methods: parameter counts, values, and refused arguments."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from rounding import identical
from safetensors.torch import load_file

import srbook
from srbook import codecs, methods, networks
from srbook.codecs import CODECS
from srbook.degradations import bicubic_upsample
from srbook.methods import METHODS, Regression, hfdiff, resshift
from srbook.networks import SRCNN, DenseBlock, ResidualPredictor, RRDBNet, build_network
from srbook.registry import read_preset, trained


@pytest.mark.parametrize("path", sorted(Path(srbook.networks.__path__[0]).glob("*.py")), ids=lambda path: path.stem)
def test_networks_are_plain(path):
    """No test for a device, a number format, or a memory layout, and no gradient by hand: that is `srbook.accel`'s."""
    source = path.read_text()
    words = ("device", "dtype", "is_contiguous", "memory_format", "channels_last", "autograd", "srbook.accel import")
    assert [word for word in words if word in source] == []


def parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("preset", "overrides", "expected"),
    [
        ("rrdb", {}, 16_697_987),
        ("rrdb", {"scale": 8}, 16_734_915),
        ("rrdb", {"network": {"width": 32, "growth": 16, "blocks": 8}, "scale": 8}, 1_488_003),  # SRDiff, CelebA
        ("predictor", {}, 34_128),
        ("srcnn", {}, 9 * 9 * 3 * 64 + 64 + 64 * 32 + 32 + 5 * 5 * 32 * 3 + 3),
        ("bicubic", {}, 0),
    ],
)
def test_parameter_counts(preset, overrides, expected):
    with torch.device("meta"):
        assert parameters(srbook.build(preset, **overrides)) == expected


def test_predictor_reproduces_resdiffs_cnn(vectors):
    """Same weights, same residual as the released program (its bicubic image is torch's, so that is taken off)."""
    released = load_file(vectors / "resdiff_simple_cnn.safetensors")
    numbers = np.load(vectors / "resdiff_cnn_and_losses.npz")
    network = ResidualPredictor(4).double()
    ours = {
        f"body.{2 * k}.{part}": released[f"conv{k + 1}.{part}"].double()
        for k in range(3)
        for part in ("weight", "bias")
    }
    network.load_state_dict(ours)
    lr = torch.from_numpy(numbers["lr"])
    upscaled = torch.nn.functional.interpolate(lr, scale_factor=4, mode="bicubic")
    expected = torch.from_numpy(numbers["cnn_out"]) - upscaled
    torch.testing.assert_close(network.residual(lr), expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(network(lr), expected + bicubic_upsample(lr, 4), rtol=0, atol=1e-10)


def test_srcnn_is_three_convolutions():
    """The formula of the book, written out with torch's functional convolution."""
    network = SRCNN(2, widths=(5, 4), kernels=(3, 1, 5)).double()
    lr = torch.rand(2, 3, 6, 7, dtype=torch.float64)
    weights = list(network.parameters())
    x = bicubic_upsample(lr, 2)
    for i, padding in enumerate((1, 0, 2)):
        x = torch.nn.functional.conv2d(x, weights[2 * i], weights[2 * i + 1], padding=padding)
        x = x.clamp(min=0) if i < 2 else x
    torch.testing.assert_close(network(lr), x, rtol=0, atol=1e-12)


def test_dense_block_by_hand():
    """One-pixel image, one channel each: the block is scalar arithmetic."""
    block = DenseBlock(width=1, growth=1).double()
    with torch.no_grad():
        for k, convolution in enumerate(block.convolutions):
            convolution.weight.zero_()
            convolution.weight[:, :, 1, 1] = 0.5 if k % 2 else -0.5
            convolution.bias.fill_(0.1)
    seen = [2.0]
    for k in range(5):
        value = (0.5 if k % 2 else -0.5) * sum(seen) + 0.1
        seen.append(value if value > 0 or k == 4 else 0.2 * value)
    result = block(torch.full((1, 1, 1, 1), 2.0, dtype=torch.float64))
    assert result.item() == pytest.approx(2.0 + 0.2 * seen[-1], abs=1e-12)


def test_rrdb_chain_equals_its_parts():
    """Global skip, trunk, nearest-neighbor doublings, and the two last convolutions in the published order."""
    network = RRDBNet(4, width=4, growth=2, blocks=2).double()
    lr = torch.rand(1, 3, 5, 6, dtype=torch.float64)
    act = torch.nn.LeakyReLU(0.2)
    head = network.head(lr)
    x = head
    for block in network.blocks:
        inner = x
        for dense in block.blocks:
            inner = dense(inner)
        x = x + 0.2 * inner
    x = head + network.trunk(x)
    for convolution in network.upscale:
        x = act(convolution(x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)))
    expected = network.tail(act(network.refine(x)))
    torch.testing.assert_close(network(lr), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["rrdb-tiny", "rrdb-small"])
def test_anchored_network_starts_at_bicubic(kind):
    lr = torch.rand(1, 3, 8, 9)
    torch.testing.assert_close(srbook.build(kind).network(lr), bicubic_upsample(lr, 4))


def handy(preset):
    """Whether a test can afford the preset: those at the scale of the papers are counted elsewhere, not run.

    Codecs have tests of their own, and a method whose codec does not ship cannot be built.
    """
    description = read_preset(preset)
    if description.method in CODECS or description.arguments.get("codec") not in (None, *trained()):
        return False
    return preset.endswith(("-small", "-tiny")) or preset in ("bicubic", "predictor", "rrdb", "srcnn")


@pytest.mark.parametrize("preset", [name for name in srbook.presets() if handy(name)])
def test_every_preset_builds_upscales_and_survives_saving(preset, tmp_path, monkeypatch):
    monkeypatch.setattr(
        resshift, "lpips", lambda sr, hr, net: (sr - hr).abs().mean()
    )  # not every machine has its network
    monkeypatch.setattr(hfdiff, "embedding", lambda encoder: lambda image: image.mean(dim=(2, 3)))  # nor AlexNet
    method = srbook.build(preset, network={"blocks": 1}) if preset == "rrdb" else srbook.build(preset)
    steps = 2 if method.samples and method.kind not in ("sinsr", "hfdiff") else None

    def upscale(method):
        return method.upscale(lr, steps=steps, generator=torch.Generator().manual_seed(0)).image

    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    lr = torch.rand(2, 3, 8, 10)
    image = upscale(method.eval())
    assert image.shape == (2, 3, 32, 40)
    assert image.min() >= 0 and image.max() <= 1
    again = srbook.load(method.save(tmp_path / "method.safetensors"))
    assert again.kind == method.kind and again.arguments == method.arguments and not again.training
    assert identical(again.state_dict(), method.state_dict())
    torch.testing.assert_close(upscale(again), image, rtol=0, atol=1e-4)
    loss = method.loss(torch.rand(2, 3, 32, 32), lr[..., :8])["loss"]
    assert loss.ndim == 0 and torch.isfinite(loss)


@pytest.mark.parametrize("preset", [name for name in srbook.presets() if read_preset(name).training])
def test_presets_describe_a_possible_training(preset):
    description = read_preset(preset)
    assert all(each.patch_size % description.arguments.get("scale", 1) == 0 for each in description.training.values())
    assert description.summary and description.method in [*METHODS, *CODECS]


def test_methods_are_found_by_their_kind():
    assert [method.kind for method in METHODS.values()] == list(METHODS)
    assert [codec.kind for codec in CODECS.values()] == list(CODECS)


@pytest.mark.parametrize("package", [srbook, codecs, methods, networks], ids=lambda package: package.__name__)
def test_every_public_name_is_there_and_imported_late(package):
    for name in package.__all__:
        value = getattr(package, name)
        assert getattr(value, "__name__", name) == name
    assert dir(package) == sorted(package.__all__)
    with pytest.raises(AttributeError, match=f"module '{package.__name__}' has no attribute 'Nothing'"):
        package.Nothing  # noqa: B018


def test_a_method_imports_no_other_and_no_other_network():
    code = "import sys; from srbook.methods import SR3; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"srbook.methods.sr3", "srbook.networks.unet"} <= set(loaded)
    assert not {"srbook.methods.ecdp", "srbook.networks.ecdp", "srbook.networks.rrdb"} & set(loaded)


@pytest.mark.parametrize("distance", ["l1", "l2"])
def test_regression_losses_by_value(distance):
    method = Regression(scale=2, network={"kind": "srcnn"}, distance=distance)
    hr, lr = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 4, 4)
    difference = (method.network(lr) - hr).detach()
    expected = difference.abs().mean() if distance == "l1" else difference.square().mean()
    torch.testing.assert_close(method.loss(hr, lr)["loss"].detach(), expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: srbook.build("nonsense"), "unknown preset 'nonsense'; choose from bicubic"),
        (lambda: srbook.build("rrdb", depth=3), "does not take these arguments"),
        (lambda: srbook.build("rrdb", network={"layers": 3}), "network 'rrdb' does not take"),
        (lambda: srbook.build("rrdb", network={"kind": "vit"}), "unknown network 'vit'"),
        (lambda: srbook.build("rrdb", distance="l3"), "distance must be one of l1, l2, got 'l3'"),
        (lambda: srbook.build("rrdb", scale=3), "scale must be 2, 4, 8"),
        (lambda: srbook.build("srcnn", scale=1), "at least 2, got 1"),
        (lambda: SRCNN(4, kernels=(8, 1, 5)), r"kernels must be odd and positive, .* got \(8, 1, 5\)"),
        (lambda: build_network(4, "unet"), "choose from predictor, rrdb, srcnn"),
        (lambda: srbook.build("bicubic").upscale(torch.rand(3, 8, 8)), r"shape \(N, 3, H, W\), got \(3, 8, 8\)"),
        (lambda: srbook.build("bicubic").upscale(torch.rand(1, 3, 8, 8) * 255), r"lr must lie in \[0, 1\]"),
        (lambda: srbook.build("bicubic").upscale(torch.full((1, 3, 8, 8), float("nan"))), "got values from nan"),
        (lambda: srbook.build("srcnn").upscale(torch.rand(1, 3, 8, 8), steps=5), "one step, got steps=5"),
        (
            lambda: srbook.build("srcnn").loss(torch.rand(1, 3, 30, 32), torch.rand(1, 3, 8, 8)),
            r"hr must be \(1, 3, 32, 32\), got \(1, 3, 30, 32\)",
        ),
    ],
)
def test_bad_arguments_are_explained(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_images_must_be_float_tensors():
    with pytest.raises(TypeError, match="divide 8-bit values by 255"):
        srbook.build("bicubic").upscale(torch.zeros(1, 3, 4, 4, dtype=torch.uint8))
    with pytest.raises(TypeError, match="got ndarray"):
        srbook.build("bicubic").upscale(np.zeros((1, 3, 4, 4)))


def test_loading_says_what_is_wrong(tmp_path):
    with pytest.raises(FileNotFoundError, match="neither a checkpoint file nor a name"):
        srbook.load("nonsense")
    with pytest.raises(FileNotFoundError, match=r"no trained weights ship for 'srcnn'\. Train it"):
        srbook.load("srcnn")
    with pytest.raises(FileNotFoundError, match=r"is a folder; give the file in it: .*weights\.safetensors"):
        srbook.load(tmp_path)
    broken = tmp_path / "broken.safetensors"
    saved = srbook.build("predictor").save(tmp_path / "good.safetensors")
    broken.write_bytes(saved.read_bytes()[:500])
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        srbook.load(broken)
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, broken)
    with pytest.raises(ValueError, match="does not hold an srbook method"):
        srbook.load(broken)
