"""LPIPS: the official values, where its weights come from, and torchvision beside a CPU-only torch."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from rounding import identical
from torch import Tensor

from srbook.backbones import backbone_weights, convert_backbone, main
from srbook.data import read_image
from srbook.files import load_tensors, save_tensors
from srbook.metrics import lpips
from srbook.metrics.perceptual import _lpips_module
from srbook.torchvision_compat import import_torchvision

pytestmark = pytest.mark.filterwarnings("ignore:torchvision's compiled operators")
OFFICIAL = {"I03": 0.7237, "I04": 0.2572, "I06": 0.0508, "I08": 0.0521, "I19": 0.4253}


@pytest.fixture
def offline(tmp_path, monkeypatch) -> Iterator[Path]:
    """No weights anywhere and no network; the folder that `SRBOOK_WEIGHTS` names."""

    def refuse(*_args, **_kwargs):
        raise URLError("no network in this test")

    folder = tmp_path / "weights"
    folder.mkdir()
    monkeypatch.setenv("SRBOOK_WEIGHTS", str(folder))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setattr("torch.hub.urlopen", refuse)
    _lpips_module.cache_clear()
    yield folder
    _lpips_module.cache_clear()


@pytest.fixture
def released(shared, offline) -> Path:
    """The folder of weights, filled with the released AlexNet and SqueezeNet features."""
    for name in ("alexnet", "squeezenet1_1"):
        source = shared / "data" / "weights" / f"{name}_features.npz"
        convert_backbone(name, source, offline / f"{name}_features.safetensors")
    return offline


def alexnet_arrays() -> dict[str, np.ndarray]:
    """Arrays of AlexNet's shapes, random but small."""
    shapes = {0: (64, 3, 11, 11), 3: (192, 64, 5, 5), 6: (384, 192, 3, 3), 8: (256, 384, 3, 3)}
    shapes[10] = (256, 256, 3, 3)
    random = np.random.default_rng(0)
    arrays = {}
    for i, shape in shapes.items():
        fan_in = np.prod(shape[1:])
        arrays[f"features.{i}.weight"] = (random.standard_normal(shape) / fan_in**0.5).astype(np.float32)
        arrays[f"features.{i}.bias"] = np.zeros(shape[0], np.float32)
    return arrays


def images(seed: int, size: int = 32) -> Tensor:
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(seed))


# --- values -------------------------------------------------------------------------------------------------


def test_official_values(shared, released):
    folder = shared / "data" / "weights" / "lpips_check"
    pairs = [[read_image(folder / kind / f"{name}.bmp") for name in OFFICIAL] for kind in ("dist_dir", "ref_dir")]
    values = lpips(torch.stack(pairs[0]), torch.stack(pairs[1]))
    assert values.tolist() == pytest.approx(list(OFFICIAL.values()), abs=5.1e-5)  # they are told with four decimals


def test_squeeze_prefers_the_smaller_distortion(released):
    hr = images(0, 64)
    noise = torch.randn(hr.shape, generator=torch.Generator().manual_seed(1))
    near, far = (lpips((hr + sigma * noise).clamp(0, 1), hr, net="squeeze") for sigma in (0.02, 0.2))
    assert ((near > 0) & (near < far)).all()
    torch.testing.assert_close(lpips(hr, hr, net="squeeze"), torch.zeros(2), rtol=0, atol=1e-7)


def test_any_weights_give_a_distance_with_gradients(offline):
    np.savez(offline / "alexnet_features.npz", **alexnet_arrays())
    state = torch.get_rng_state()
    with torch.inference_mode():
        value = lpips(images(0), images(1))
    assert identical(torch.get_rng_state(), state)  # building the network drew no random numbers
    assert not lpips(images(0), images(1)).requires_grad
    torch.testing.assert_close(lpips(images(1), images(0)), value)
    torch.testing.assert_close(lpips(images(0)[1:], images(1)[1:]), value[1:])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(lpips(images(0), images(1)), value)

    sr = images(0).requires_grad_()
    lpips(sr, images(1)).sum().backward()
    assert sr.grad.isfinite().all() and sr.grad.abs().amax() > 0
    step = (sr - 1e-3 * sr.grad / sr.grad.abs().amax()).detach().clamp(0, 1)
    assert (lpips(step, images(1)) < value).all()


@pytest.mark.parametrize("net", ["alex", "squeeze"])
def test_the_smallest_size_works(net, released):
    least = {"alex": 31, "squeeze": 17}[net]
    assert lpips(images(0, least), images(1, least), net=net).gt(0).all()
    with pytest.raises(ValueError, match=f"needs at least {least}x{least} pixels"):
        lpips(images(0, least - 1), images(1, least - 1), net=net)


def test_vgg_features_arrive_in_their_places(offline):
    """No VGG weights are at hand: with made-up ones, each slice must agree with torchvision's own network."""
    models = import_torchvision().models
    network = models.vgg16(weights=None).features.eval()
    tensors = {f"features.{key}": value for key, value in network.state_dict().items()}
    save_tensors(offline / "vgg16_features.safetensors", tensors, {})
    assert lpips(images(0), images(1), net="vgg").gt(0).all()
    features = _lpips_module("vgg", torch.device("cpu")).net(images(0))
    for name, end in {"relu1_2": 4, "relu2_2": 9, "relu3_3": 16, "relu4_3": 23, "relu5_3": 30}.items():
        torch.testing.assert_close(getattr(features, name), network[:end](images(0)).detach())


# --- weights ------------------------------------------------------------------------------------------------


def test_npz_and_safetensors_hold_the_same(offline):
    arrays = alexnet_arrays() | {"classifier.1.weight": np.zeros((2, 2), np.float32)}
    source = offline / "alexnet_features.npz"
    np.savez(source, **arrays)
    from_npz = backbone_weights("alexnet")
    main(["alexnet", str(source), str(offline / "alexnet_features.safetensors")])
    source.unlink()
    from_safetensors = backbone_weights("alexnet")
    assert sorted(from_npz) == sorted(from_safetensors) == sorted(alexnet_arrays())
    for key, array in alexnet_arrays().items():
        assert identical(from_npz[key], array)
        assert identical(from_safetensors[key], array)
    assert load_tensors(offline / "alexnet_features.safetensors")[1]["backbone"] == "alexnet"


def test_torch_hub_cache_is_used(offline, monkeypatch):
    monkeypatch.delenv("SRBOOK_WEIGHTS")
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    cache.mkdir(parents=True)
    tensors = {key: torch.from_numpy(array) for key, array in alexnet_arrays().items()}
    torch.save(tensors | {"classifier.6.bias": torch.zeros(1000)}, cache / "alexnet-owt-7be5be79.pth")
    assert identical(backbone_weights("alexnet")["features.3.weight"], tensors["features.3.weight"])

    (cache / "alexnet-owt-7be5be79.pth").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(ValueError, match=r"alexnet-owt-7be5be79\.pth is damaged .* delete it and try again"):
        backbone_weights("alexnet")


@pytest.mark.parametrize(
    ("net", "backbone", "file"),
    [
        ("alex", "alexnet", "alexnet-owt-7be5be79.pth"),
        ("vgg", "vgg16", "vgg16-397923af.pth"),
        ("squeeze", "squeezenet1_1", "squeezenet1_1-b8a52dc0.pth"),
    ],
)
def test_absent_weights_say_what_goes_where(offline, net, backbone, file):
    with pytest.raises(FileNotFoundError) as caught:
        lpips(images(0), images(1), net=net)
    message = str(caught.value)
    assert f"the weights of {backbone} are not on this machine" in message
    assert "no network in this test" in message
    assert file in message and str(Path(torch.hub.get_dir()) / "checkpoints") in message
    assert f"{backbone}_features.safetensors (or .npz)" in message and "SRBOOK_WEIGHTS" in message


def test_bad_weights_are_named(offline, monkeypatch):
    arrays = alexnet_arrays()
    path = offline / "alexnet_features.npz"

    del arrays["features.8.bias"]
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=r"features\.8\.bias must be there .*\(1 of 10 arrays"):
        backbone_weights("alexnet")

    np.savez(path, **(alexnet_arrays() | {"features.0.bias": np.zeros(3)}))
    with pytest.raises(ValueError, match=r"features\.0\.bias must be there with shape \(64,\)"):
        backbone_weights("alexnet")

    path.write_bytes(b"not an archive")
    with pytest.raises(ValueError, match=r"alexnet_features\.npz is not a readable \.npz file"):
        backbone_weights("alexnet")

    np.savez(path, **{"features.0.weight": np.array([print], dtype=object)})
    with pytest.raises(ValueError, match="plain arrays"):
        backbone_weights("alexnet")

    (offline / "alexnet_features.safetensors").write_bytes(b"\x00")
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        backbone_weights("alexnet")

    monkeypatch.setenv("SRBOOK_WEIGHTS", str(offline / "elsewhere"))
    with pytest.raises(FileNotFoundError, match=r"SRBOOK_WEIGHTS names .*elsewhere, which is not a folder"):
        backbone_weights("alexnet")
    with pytest.raises(ValueError, match="unknown backbone 'resnet50'; use one of alexnet"):
        backbone_weights("resnet50")


def test_conversion_refuses_a_name_that_would_not_be_found(tmp_path):
    with pytest.raises(ValueError, match=r"must be called alexnet_features\.safetensors"):
        convert_backbone("alexnet", tmp_path / "a.npz", tmp_path / "alex.safetensors")
    with pytest.raises(FileNotFoundError, match=r"no such file: .*a\.npz"):
        convert_backbone("alexnet", tmp_path / "a.npz", tmp_path / "alexnet_features.safetensors")


def test_bad_images_are_named():
    with pytest.raises(ValueError, match="net must be one of alex, vgg, squeeze, got 'lin'"):
        lpips(images(0), images(1), net="lin")
    with pytest.raises(ValueError, match="same shape"):
        lpips(images(0), images(1, 40))
    with pytest.raises(ValueError, match=r"hr must lie in \[0, 1\]"):
        lpips(images(0), images(1) * 2 - 1)


# --- torchvision --------------------------------------------------------------------------------------------


def run_with_torchvision(tmp_path: Path, source: str, program: str) -> subprocess.CompletedProcess:
    """Run a program in a fresh interpreter whose torchvision is `source`."""
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "extension.py").write_text("")
    (package / "__init__.py").write_text(textwrap.dedent(source))
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", textwrap.dedent(program)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


def test_missing_operators_are_declared_only_when_needed(tmp_path):
    result = run_with_torchvision(
        tmp_path,
        """
        import gc, torch
        import torchvision.extension
        gc.collect()
        if not hasattr(torch.ops.torchvision, "nms"):
            raise RuntimeError("operator torchvision::nms does not exist")
        """,
        """
        import warnings
        from srbook.torchvision_compat import import_torchvision
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            first = import_torchvision()
            assert import_torchvision() is first
        assert [w.category for w in caught] == [UserWarning], caught
        assert "Models and transforms work" in str(caught[0].message)
        """,
    )
    assert result.returncode == 0, result.stderr


def test_declarations_that_do_not_help_are_reported(tmp_path):
    result = run_with_torchvision(
        tmp_path,
        "raise RuntimeError('operator torchvision::nms does not exist')",
        "from srbook.torchvision_compat import import_torchvision; import_torchvision()",
    )
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: torchvision's compiled operators do not fit this torch")
    assert "install matching builds of torch and torchvision" in last


@pytest.mark.parametrize(
    ("trouble", "kind", "message"),
    [
        (RuntimeError("another trouble"), RuntimeError, "^another trouble$"),
        (ModuleNotFoundError(name="torchvision"), ImportError, r'pip install "srbook\[lpips\]"'),
        (ModuleNotFoundError("no PIL", name="PIL"), ModuleNotFoundError, "^no PIL$"),
    ],
)
def test_other_trouble_is_passed_on(monkeypatch, trouble, kind, message):
    def fail(_name: str):
        raise trouble

    monkeypatch.setattr("srbook.torchvision_compat.import_module", fail)
    with pytest.raises(kind, match=message):
        import_torchvision()


def test_import_srbook_metrics_stays_light():
    program = "import sys, srbook.metrics; print([m for m in ('torchvision', 'lpips') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert result.stdout.strip() == "[]", result.stderr
