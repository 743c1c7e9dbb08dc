"""HF-Diff: its terms by hand, what its program does instead, and what its training and its files need."""

from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from numpy.testing import assert_allclose
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, l1_loss, mse_loss

import srbook
from srbook.codecs import VQGAN, Extractor
from srbook.images import clip
from srbook.losses import embeddings, jensen_shannon
from srbook.losses import features as features_module
from srbook.methods import HFDiff, ResShift, SinSR
from srbook.registry import begin_from, build, read_preset

TINY = {"width": 8, "multipliers": [1, 2], "blocks": 1, "attention": [], "groups": 4}
TINY |= {"embedding": 8, "heads": 2, "window": 2, "ratio": 1, "size": 4}
STUDENT = {"schedule": {"steps": 15, "min_noise_level": 0.04}, "network": TINY}
ALONE = {"high_frequency": 0.0, "divergence": 0.0}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pair(size: int = 32) -> tuple[Tensor, Tensor]:
    hr = torch.rand(2, 3, size, size, generator=seeded())
    return hr, avg_pool2d(hr, 4)


@pytest.fixture
def extractor(tmp_path: Path) -> Path:
    torch.manual_seed(2)
    made = Extractor(classes=3, network={"width": 8, "depth": 2})
    for weight in made.parameters():
        nn.init.normal_(weight, std=0.2)
    return made.save(tmp_path / "extractor.safetensors")


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    return ResShift(scale=4, **STUDENT).save(tmp_path / "teacher.safetensors")


@pytest.fixture
def make(extractor: Path, teacher: Path):
    """A method whose weights are always the same."""

    def make(**changes: object) -> HFDiff:
        torch.manual_seed(0)
        given = {"scale": 4, "student": {"method": "resshift", "arguments": STUDENT}, "encoder": "extractor"}
        return HFDiff(**given | {"teacher": str(teacher), "extractor": str(extractor)} | changes)

    return make


def jump(method: HFDiff, lr: Tensor) -> tuple[Tensor, Tensor]:
    """The step that the loss with the generator `seeded()` judges, and its image."""
    condition = method.student.condition(lr)
    start = method.student.path.start(condition.anchor, torch.randn(condition.anchor.shape, generator=seeded()))
    step = method.jump(start, condition)
    return step, method.space.decode(step)


def test_without_its_terms_it_is_sinsr(make, teacher: Path):
    torch.manual_seed(0)
    sinsr = SinSR(scale=4, student={"method": "resshift", "arguments": STUDENT}, teacher=str(teacher))
    found, wanted = make(**ALONE).loss(*pair(), seeded()), sinsr.loss(*pair(), seeded())
    assert found.keys() == wanted.keys()
    for name in wanted:
        assert_allclose(found[name].detach(), wanted[name].detach(), rtol=1e-6)


def test_the_terms_by_hand(make, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("srbook.methods.hfdiff.lpips", lambda a, b, net: (a - b).square().flatten(1).mean(1) * len(net))
    monkeypatch.setitem(srbook.methods.hfdiff.FEATURES, "alex", lambda image: image.diff(dim=-1))
    weights = {"high_frequency": 2.0, "divergence": 3.0, "features": 5.0, "lpips": 7.0}
    method = make(**weights, temperature=0.5, features_net="alex")
    hr, lr = pair()
    losses, (_, image) = method.loss(hr, lr, seeded()), jump(method, lr)
    known = method.extractor.module
    found = clip(image)
    wanted = {
        "high_frequency": mse_loss(known.network.features(2 * image - 1), known.network.features(2 * hr - 1)),
        "divergence": jensen_shannon(2 * known.embed(found), 2 * known.embed(hr)).mean(),
        "features": l1_loss(found.diff(dim=-1), hr.diff(dim=-1)),
        "lpips": 4 * mse_loss(found, hr),
    }
    for name, value in wanted.items():
        assert value > 1e-7
        assert_allclose(losses[name].detach(), value.detach(), rtol=1e-4)
    total = sum(weights.get(name, 1.0) * losses[name] for name in losses if name != "loss")
    assert_allclose(losses["loss"].detach(), total.detach(), rtol=1e-6)


def test_what_the_program_does(make, tmp_path: Path):
    """The features of the latent, of the step from what the way back makes of the truth."""
    torch.manual_seed(3)
    network = {"width": 8, "multipliers": [1, 2, 2], "blocks": 1, "codes": 8, "attention": False, "groups": 4}
    codec = VQGAN(network=network, perceptual="none").save(tmp_path / "codec.safetensors")
    student = {"method": "resshift", "arguments": STUDENT | {"codec": str(codec)}}
    torch.manual_seed(1)
    teacher = build_student(student).save(tmp_path / "latent.safetensors")
    released = {"high_frequency": 0.2, "high_frequency_of": "truth", "high_frequency_in": "latent", "divergence": 0.0}
    method, (hr, lr) = make(student=student, teacher=str(teacher), **released), pair()
    losses = method.loss(hr, lr, seeded())
    condition, known = method.student.condition(lr), method.extractor.module
    x0 = method.student.clean(hr, condition)
    returned = method.jump(method.back(x0, condition).detach(), condition)
    wanted = mse_loss(known.network.features(returned), known.network.features(x0))
    assert losses.keys() == {"loss", "distill", "inverse", "truth", "high_frequency"}
    assert_allclose(losses["high_frequency"].detach(), wanted.detach(), rtol=1e-4)
    paper = make(student=student, teacher=str(teacher), divergence=0.0).loss(hr, lr, seeded())["high_frequency"]
    assert abs(paper - wanted).item() > 1e-3 * wanted.item()


def build_student(student: dict) -> ResShift:
    return ResShift(scale=4, **student["arguments"])


def test_gradients_reach_the_student_alone(make):
    method = make()
    losses = method.loss(*pair(), seeded())
    for name in ("high_frequency", "divergence"):
        method.zero_grad()
        losses[name].backward(retain_graph=True)
        assert sum(weight.grad.abs().sum() for weight in method.parameters() if weight.grad is not None) > 0
    assert all(name.startswith("student.") for name, _ in method.named_parameters())
    assert all(not tensor.requires_grad for tensor in method.extractor.weights().values())


def test_a_file_needs_no_extractor(make, extractor: Path, teacher: Path, tmp_path: Path):
    method, (hr, lr) = make(), pair()
    file = method.save(tmp_path / "student.safetensors")
    image = method.upscale(lr, generator=seeded()).image
    extractor.unlink()
    loaded = srbook.load(file)
    torch.testing.assert_close(loaded.upscale(lr, generator=seeded()).image, image)
    with pytest.raises(FileNotFoundError, match=r"training needs the extractor, and .* is not on this machine"):
        loaded.loss(hr, lr, seeded())


def test_it_begins_with_the_weights_of_a_student(make, tmp_path: Path):
    """SinSR's, of which only the student has a place."""
    torch.manual_seed(5)
    sinsr = SinSR(scale=4, student={"method": "resshift", "arguments": STUDENT})
    file = sinsr.save(tmp_path / "sinsr.safetensors")
    method = make()
    begin_from(method, read_preset("hfdiff").model_copy(update={"starts_from": str(file)}))
    for name, tensor in method.student.state_dict().items():
        torch.testing.assert_close(tensor, sinsr.student.state_dict()[name])


def test_the_presets_say_what_paper_and_program_do():
    paper, released = (read_preset(name).arguments for name in ("hfdiff", "hfdiff-released"))
    assert paper["encoder"] == "dinov2" and "high_frequency_in" not in paper
    assert (released["high_frequency"], released["divergence"]) == (0.2, 0.0)
    assert (released["high_frequency_of"], released["high_frequency_in"]) == ("truth", "latent")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"divergence": -1.0}, "divergence must be a weight of at least 0"),
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"encoder": "clip"}, "encoder must be one of extractor, dinov2, alexnet, vgg19"),
        ({"high_frequency_in": "latent"}, "the extractor sees three channels, and the student's x has 48"),
        ({"high_frequency_of": "truth", "truth": 0.0, "inverse": 0.0}, "need the term of the truth"),
    ],
)
def test_what_cannot_be_is_refused(make, changes: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        make(**changes)


def test_a_file_of_something_else_is_no_extractor(make, tmp_path: Path):
    codec = build("vqgan-tiny").save(tmp_path / "codec.safetensors")
    with pytest.raises(ValueError, match="holds no extractor but a vqgan"):
        make(extractor=str(codec))


@pytest.fixture
def random_alexnet(monkeypatch: pytest.MonkeyPatch):
    """AlexNet with weights of its own shapes."""
    shapes = {0: (64, 3, 11), 3: (192, 64, 5), 6: (384, 192, 3), 8: (256, 384, 3), 10: (256, 256, 3)}
    weights = {}
    for place, (outputs, inputs, side) in shapes.items():
        spread = (2 / (inputs * side**2)) ** 0.5
        weights[f"features.{place}.weight"] = spread * torch.randn(outputs, inputs, side, side, generator=seeded(place))
        weights[f"features.{place}.bias"] = torch.zeros(outputs)
    monkeypatch.setattr(features_module, "backbone_weights", lambda name: {"alexnet": weights}[name])
    features_module._layers.cache_clear()
    yield weights
    features_module._layers.cache_clear()


def test_alexnets_features_and_embedding(random_alexnet):
    image = torch.rand(2, 3, 63, 95, generator=seeded()).requires_grad_()
    found = features_module.alexnet_features(image)
    assert found.shape == (2, 256, 3, 5) and (found >= 0).all() and (found == 0).any()
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = (image - mean.view(3, 1, 1)) / deviation.view(3, 1, 1)
    first = nn.functional.conv2d(x, random_alexnet["features.0.weight"], stride=4, padding=2)
    layers = features_module._layers("alexnet", 0, torch.device("cpu"))
    torch.testing.assert_close(layers(x), first)
    embedded = embeddings.embedding("alexnet")(image)
    torch.testing.assert_close(embedded, found.mean(dim=(2, 3)))
    (gradient,) = torch.autograd.grad(embedded.sum(), image)
    assert gradient.abs().max() > 0
    with pytest.raises(ValueError, match="AlexNet needs 31x31 pixels"):
        features_module.alexnet_features(torch.rand(1, 3, 30, 40))


def test_dinov2_is_asked_of_torch_hub_and_gets_what_it_takes(monkeypatch: pytest.MonkeyPatch):
    class Token(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            self.seen = image
            return image.mean(dim=(2, 3))

    asked, model = [], Token()
    monkeypatch.setattr(torch.hub, "load", lambda *words, **_: asked.append(words) or model)
    embeddings._dino.cache_clear()
    image = torch.rand(1, 3, 20, 28, generator=seeded())
    found = embeddings.embedding("dinov2")(image)
    embeddings._dino.cache_clear()
    assert asked == [("facebookresearch/dinov2", "dinov2_vits14")] and found.shape == (1, 3)
    fitting = interpolate(image, size=(28, 28), mode="bicubic", antialias=True)
    torch.testing.assert_close(model.seen, features_module.imagenet_normalized(fitting))


def test_an_absent_dinov2_is_explained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def offline(*_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr("torch.hub.urlopen", offline)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    embeddings._dino.cache_clear()
    with pytest.raises(FileNotFoundError, match=r"DINOv2 is not on this machine .* another encoder, such as alexnet"):
        embeddings.embedding("dinov2")
    with pytest.raises(ValueError, match="encoder must be one of dinov2, alexnet, vgg19"):
        embeddings.embedding("clip")
