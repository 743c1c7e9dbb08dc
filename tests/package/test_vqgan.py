"""VQ-GAN: the network against the released program, its codes, its losses, and what its training keeps."""

import numpy as np
import pytest
import torch
from rounding import apart, identical
from test_training import RandomBatches
from torch import nn
from typer.testing import CliRunner

import srbook
from srbook.cli import app
from srbook.codecs import VQGAN, codebook_loss, read_codec
from srbook.convert import from_released
from srbook.data import read_image, write_image
from srbook.degradations import Bicubic
from srbook.evaluation import evaluate
from srbook.files import load_tensors, save_tensors
from srbook.frozen import Frozen
from srbook.images import round_to_8bit
from srbook.losses import adaptive_weight, hinge_loss
from srbook.metrics import PROTOCOL_A, psnr
from srbook.networks import Codebook, VQAutoencoder
from srbook.spaces import Latent
from srbook.training import Trainer, TrainingConfig, Validation

SMALL = {"width": 4, "multipliers": [1, 2], "blocks": 1, "codes": 16, "attention": False, "groups": 2}
JUDGED = {"weight": 0.75, "start": 2, "warmup": 2, "width": 4, "layers": 1}


def small(**changes) -> VQGAN:
    torch.manual_seed(0)
    return VQGAN(**{"network": SMALL, "perceptual": "none", "patience": 3, **changes})


def picture(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def parameters(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


# The network


def test_the_published_sizes():
    with torch.device("meta"):
        f4, f8, default = srbook.build("vqgan-f4"), srbook.build("vqgan-f8"), VQAutoencoder()
    assert (parameters(f4.network), f4.factor, f4.channels) == (55_322_782, 4, 3)
    assert (parameters(f4.network.encoder), parameters(f4.network.decoder)) == (22_337_411, 32_960_771)
    assert (parameters(f8.network), f8.factor, f8.channels) == (77_009_115, 8, 8)
    assert parameters(default) == parameters(f4.network)
    assert parameters(f4.discriminator) == 2_765_633


@pytest.fixture(scope="module")
def released(vectors):
    """The released program's tiny network, and its numbers in double precision."""
    state, _ = load_tensors(vectors / "vqgan_tiny.safetensors")
    network = VQAutoencoder(width=32, multipliers=(1, 2), blocks=1, codes=64)
    network.load_state_dict(from_released("vqgan", state))
    numbers = np.load(vectors / "vqgan_tiny_net.npz")
    return network.double(), {name: torch.from_numpy(numbers[name]) for name in numbers.files}


def test_the_released_network_gives_the_released_numbers(released):
    network, numbers = released
    z = network.encode(numbers["x"])
    torch.testing.assert_close(z, numbers["z"], rtol=0, atol=1e-12)
    assert identical(network.codebook.nearest(z).flatten(), numbers["idx"])
    torch.testing.assert_close(network.quantize(z), numbers["quant"], rtol=0, atol=1e-12)
    torch.testing.assert_close(network(numbers["x"]), numbers["dec"], rtol=0, atol=1e-12)
    torch.testing.assert_close(network.decode(z), numbers["dec_noquant"], rtol=0, atol=1e-12)


def test_other_sizes_and_those_that_do_not_fit(released):
    network, _ = released
    assert network(torch.zeros(1, 3, 10, 6).double()).shape == (1, 3, 10, 6)
    with pytest.raises(ValueError, match=r"sides must be multiples of 2, got \(9, 6\)"):
        network.encode(torch.zeros(1, 3, 9, 6))
    with pytest.raises(ValueError, match="got 2 levels and blocks for 3"):
        VQAutoencoder(32, (1, 2), (1, 2, 3))
    with pytest.raises(ValueError, match="multiple of groups=32"):
        VQAutoencoder(16, (1, 2))
    with pytest.raises(ValueError, match="picture of 3 channels, got 4"):
        VQAutoencoder(32, (1,), channels=4, anchored=True)


def test_an_anchored_network_starts_as_a_small_picture():
    network, image = VQAutoencoder(**SMALL, anchored=True), 2 * picture(1, 3, 8, 8) - 1
    torch.testing.assert_close(network.encode(image), nn.functional.avg_pool2d(image, 2))
    flat = torch.full((1, 3, 4, 4), 0.3)
    torch.testing.assert_close(network.decode(flat), torch.full((1, 3, 8, 8), 0.3))


def test_without_normalization_a_tile_is_decoded_like_the_whole():
    """Only near its edges, as far as the network sees, is a tile another picture."""
    torch.manual_seed(0)
    z = torch.randn(1, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    near = {}
    for groups in (None, 2):
        network = VQAutoencoder(**{**SMALL, "groups": groups}).double()
        whole, tile = network.decode(z.double()), network.decode(z[..., :16].double())
        near[groups] = (whole[..., :8] - tile[..., :8]).abs().max().item()
    assert near[None] < 1e-12 and near[2] > 1e-6


# The codes


def test_the_nearest_code_is_that_of_a_search_by_hand():
    codebook, z = Codebook(7, 3), torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    nn.init.normal_(codebook.weight)
    distances = (z.movedim(1, -1).unsqueeze(3) - codebook.weight).square().sum(dim=-1)
    assert identical(codebook.nearest(z), distances.argmin(dim=-1))
    assert identical(codebook(codebook.nearest(z))[1, :, 2, 3], codebook.weight[distances[1, 2, 3].argmin()])


def test_many_positions_are_compared_part_by_part(monkeypatch):
    codebook, z = Codebook(9, 3), picture(2, 3, 5, 5) / 9
    whole = codebook.nearest(z)
    monkeypatch.setattr("srbook.networks.vqgan.ROWS", 7)
    assert identical(codebook.nearest(z), whole)


def test_the_gradient_passes_straight_through():
    network, z = small().network, torch.randn(1, 3, 4, 4).requires_grad_()
    pull = torch.randn(1, 3, 4, 4)
    (network.quantize(z) * pull).sum().backward()
    assert identical(z.grad, pull)
    assert network.codebook.weight.grad is None


@pytest.mark.parametrize(("weighting", "codes", "latent"), [("corrected", 1.0, 0.25), ("published", 0.25, 1.0)])
def test_beta_weighs_the_latents_move_or_the_codes(weighting, codes, latent):
    """The gradients are 2 (code - z) / n, once weighted by beta: which one, is the program's mistake."""
    z, code = (torch.randn(1, 3, 2, 2, generator=torch.Generator().manual_seed(s)).requires_grad_() for s in (0, 1))
    loss = codebook_loss(z, code, 0.25, weighting)
    assert loss.item() == pytest.approx(1.25 * (z - code).square().mean().item())
    loss.backward()
    gap = 2 * (code - z).detach() / z.numel()
    torch.testing.assert_close(code.grad, codes * gap)
    torch.testing.assert_close(z.grad, -latent * gap)


def test_dead_codes_become_latents_of_the_batch_and_used_ones_stay():
    codec, hr = small().train(), picture(2, 3, 16, 16)
    codec.trained += 100
    codec.idle[5] = codec.patience
    nn.init.constant_(codec.network.codebook.weight[5:6], 9.0)
    before = codec.network.codebook.weight.detach().clone()
    codec.loss(hr, hr, torch.Generator().manual_seed(0))
    after, positions = codec.network.codebook.weight.detach(), codec.network.encode(2 * hr - 1).movedim(1, -1)
    changed = (after != before).any(dim=1)
    assert changed.nonzero().flatten().tolist() == [5]
    assert (positions - after[5]).abs().amax(dim=-1).min() < 1e-6


def test_a_fresh_codebook_is_filled_by_the_first_batch():
    codec, hr = small().train(), picture(4, 3, 16, 16)
    first, second = (codec.loss(hr, hr, torch.Generator().manual_seed(0)) for _ in range(2))
    assert second["codebook"] < 0.5 * first["codebook"] and second["used"] == 1
    codec.eval()
    kept = {name: tensor.clone() for name, tensor in codec.state_dict().items()}
    codec.loss(hr, hr)
    assert identical(codec.state_dict(), kept)  # only training counts and replaces


def test_what_is_rare_gets_codes():
    """One position in a hundred lies far from all codes: the dead ones go there, not where most positions are."""
    codec = small(patience=1).train()
    codec.trained += 100
    codec.idle.fill_(5)
    z = torch.zeros(1, 3, 10, 10)
    z[..., 4, 7] = 3.0
    codec._replace_dead_codes(z, torch.zeros_like(z), torch.Generator().manual_seed(0))
    assert (codec.network.codebook.weight == 3).all()
    codec.idle.fill_(5)
    codec._replace_dead_codes(0 * z, 0 * z, torch.Generator().manual_seed(0))  # no distance at all
    assert (codec.network.codebook.weight == 0).all()


def test_early_codes_die_after_a_tenth_of_the_steps():
    codec, z = small(patience=500).train(), torch.ones(1, 3, 2, 2)
    codec.trained += 100
    codec.idle.copy_(torch.arange(16))
    codec._replace_dead_codes(z, 0 * z, None)
    assert (codec.idle == 0).tolist() == [True, *[False] * 9, *[True] * 6]


def test_use_is_counted_over_as_many_steps_as_the_patience():
    codec, hr = small().train(), picture(1, 3, 16, 16)
    codec._replace_dead_codes = lambda z, codes, generator: None
    nn.init.constant_(codec.network.codebook.weight, 100.0)
    nn.init.zeros_(codec.network.codebook.weight[:1])  # the nearest to all
    shares = [codec.loss(hr, hr)["used"].item() for _ in range(4)]
    assert shares == [1, 1, 1 / 16, 1 / 16] and codec.idle[:2].tolist() == [0, 4]


def test_the_latent_has_the_deviation_that_training_measured():
    codec, hr = small().train(), picture(4, 3, 16, 16)
    for _ in range(3):
        codec.loss(hr, hr)
    assert codec.encode(hr).std().item() == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(codec.encode(hr) * codec.deviation, codec.network.encode(2 * hr - 1))
    torch.testing.assert_close(codec.decode(codec.encode(hr)), (codec.network(2 * hr - 1) + 1) / 2)


# The losses


def test_the_loss_is_the_sum_of_its_parts():
    codec, hr = small(perceptual_weight=0.5).eval(), picture(2, 3, 16, 16)
    codec.perceptual_distance = lambda found, wanted: (found - wanted).square().mean(dim=(1, 2, 3))
    figures = codec.loss(hr, hr)
    found = codec.network(2 * hr - 1)
    assert figures["l1"].item() == pytest.approx((found - (2 * hr - 1)).abs().mean().item())
    squares = (((found + 1) / 2).clamp(0, 1) - hr).square().mean()
    assert figures["perceptual"].item() == pytest.approx(squares.item())
    assert figures["loss"].item() == pytest.approx(
        (figures["l1"] + 0.5 * figures["perceptual"] + figures["codebook"]).item()
    )


def test_a_perceptual_loss_without_its_weights_says_what_else_there_is(monkeypatch):
    def absent(found, wanted, net):
        raise FileNotFoundError(f"the weights of {net} are not here")

    monkeypatch.setattr("srbook.codecs.vqgan.lpips", absent)
    with pytest.raises(FileNotFoundError, match="of vgg are not here; or train by pixels alone, with perceptual: none"):
        small(perceptual="vgg").loss(picture(1, 3, 32, 32), picture(1, 3, 32, 32))


def test_hinge_loss():
    real, fake = torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 1.0])
    assert hinge_loss(real, fake).item() == pytest.approx((0.25 + 1.0) / 2)


def test_the_adaptive_weight_is_the_ratio_of_gradients():
    last = torch.tensor([1.0, 2.0], requires_grad=True)
    base, adversarial = (3 * last).sum() + last.square().sum(), (5 * last).sum()
    expected = torch.tensor([5.0, 7.0]).norm() / (torch.tensor([5.0, 5.0]).norm() + 1e-4)
    weight = adaptive_weight(base, adversarial, last)
    torch.testing.assert_close(weight, expected)
    assert not weight.requires_grad
    assert adaptive_weight(base, 0 * adversarial, last) == 1e4


def test_the_adversary_starts_waits_and_pulls_as_hard_as_the_rest():
    codec, hr = small(adversary={**JUDGED, "weight": 0.5}).train(), picture(2, 3, 16, 16)
    last, heard, judged = codec.network.last, [], []
    for _ in range(5):
        figures = codec.loss(hr, hr, torch.Generator().manual_seed(0))
        judged.append(codec.discriminator_loss(hr, hr)["loss"].item() > 0)
        heard.append("adversarial" in figures)
    assert (judged, heard) == ([False, False, True, True, True], [False, False, False, False, True])
    whole = torch.autograd.grad(figures["loss"], last, retain_graph=True)[0]
    rest = torch.autograd.grad(figures["l1"], last)[0]
    assert (whole - rest).norm().item() == pytest.approx(0.5 * rest.norm().item(), rel=0.02)


# Training, files, and use


def trainer(folder=None, *, steps=6, **changes) -> Trainer:
    config = TrainingConfig(steps=steps, learning_rate=1e-3, precision="fp32", schedule="constant", save_every=3)
    return Trainer(small(**changes), RandomBatches(), config, output=folder, device="cpu", progress=False)


@pytest.mark.arithmetic
@pytest.mark.parametrize("adversary", [None, JUDGED])
def test_a_resumed_training_ends_the_same(tmp_path, adversary):
    """With the count of use and the deviation: a code that dies after the resume dies in both, for the same latent."""
    whole, start = trainer(adversary=adversary), small(adversary=adversary).state_dict()
    names = [turn.name for turn in whole.method.turns()]
    assert names == (["main"] if adversary is None else ["autoencoder", "discriminator"])
    whole.fit()
    trainer(tmp_path, steps=3, adversary=adversary).fit()
    resumed = trainer(tmp_path, adversary=adversary)
    resumed.fit()
    assert identical(resumed.method.idle, whole.method.idle) and resumed.method.trained == 6
    assert apart(resumed.method.state_dict(), whole.method.state_dict(), start) < 1e-3


def test_a_file_gives_the_codec_back(tmp_path):
    codec, hr = small().train(), picture(2, 3, 16, 16)
    codec.loss(hr, hr)
    path = codec.eval().save(tmp_path / "codec.safetensors")
    for again in (srbook.load(path), read_codec(path)):
        assert again.arguments == codec.arguments and not again.training
        assert identical(again.state_dict(), codec.state_dict())
    half = read_codec(codec.half().save(tmp_path / "half.safetensors"))
    assert {tensor.dtype for tensor in half.state_dict().values()} == {torch.float32}


def test_what_is_no_codec_says_so(tmp_path):
    other = save_tensors(tmp_path / "other.safetensors", {"x": torch.zeros(1)}, {"format": "srbook-method-1"})
    with pytest.raises(ValueError, match="does not hold a codec of srbook"):
        read_codec(other)
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_codec(tmp_path / "none")
    with pytest.raises(ValueError, match="perceptual must be one of alex, vgg, squeeze, none, got 'vgg19'"):
        small(perceptual="vgg19")
    with pytest.raises(ValueError, match="beta must be a number of at least 0, got -1"):
        small(beta=-1)
    with pytest.raises(ValueError, match="patience must be an integer of at least 1, got 0"):
        small(patience=0)
    with pytest.raises(ValueError, match=r"'vqgan' does not take these arguments: .*'begin'"):
        srbook.build("vqgan-tiny", adversary={"begin": 3})
    with pytest.raises(ValueError, match="vqgan has the stages main, got 'diffusion'"):
        small().begin("diffusion")


def test_a_frozen_codec_makes_a_latent(tmp_path):
    codec = small().eval()
    space = Latent(Frozen(read_codec(codec.save(tmp_path / "codec.safetensors"))).module)
    image = picture(1, 3, 8, 12).requires_grad_()
    x = space.encode(image)
    assert (space.channels, space.factor, tuple(x.shape)) == (3, 2, (1, 3, 4, 6))
    torch.testing.assert_close(space.decode(x), codec.decode(codec.encode(image)).clamp(0, 1))
    codec.decode(x).sum().backward()
    assert image.grad.abs().sum() > 0  # a loss of the image reaches what comes before the codec


def test_it_is_measured_like_a_method_of_magnification_one():
    codec, hr = small().eval(), picture(1, 3, 17, 21)
    even, found = hr[..., :16, :20], codec.upscale(hr).image
    assert found.shape == hr.shape and found.min() >= 0 and found.max() <= 1
    torch.testing.assert_close(codec.upscale(even).image, codec.decode(codec.encode(even)).clamp(0, 1))
    figures = Validation({"one": hr}, Bicubic(1), ("psnr",))(codec, 0)
    expected = psnr(round_to_8bit(found), hr, channel="y", border=1).item()
    assert figures["psnr"] == pytest.approx(expected, abs=0.005)  # a value may round to the next of 256 levels
    with pytest.raises(ValueError, match="codec magnifies 1 times, so it cannot be evaluated at scale 4"):
        evaluate({"codec": codec}, {"one": hr}, scale=4, protocol=PROTOCOL_A)
    with pytest.raises(ValueError, match="reconstructs in one step, got steps=4"):
        codec.upscale(hr, steps=4)


@pytest.mark.parametrize("name", ["vqgan-tiny", "vqgan-small"])
def test_the_small_presets(name):
    codec = srbook.build(name)
    assert (codec.factor, codec.channels) == (4, 3) and parameters(codec) <= 4_000_000
    assert codec.upscale(picture(1, 3, 12, 9)).image.shape == (1, 3, 12, 9)


def test_the_command_line_trains_it_and_shows_reconstructions(tmp_path):
    for number in range(2):
        write_image(tmp_path / "photos" / f"{number}.png", picture(3, 40, 44, seed=number))
    run, out = tmp_path / "run", tmp_path / "out"
    words = ["train", "--preset", "vqgan-tiny", "--data", str(tmp_path / "photos"), "--output", str(run)]
    done = CliRunner().invoke(app, [*words, "--steps", "2", "--batch-size", "2"])
    assert done.exit_code == 0 and "Done after 2 steps" in done.output, done.output
    words = ["upscale", str(tmp_path / "photos" / "0.png"), "--model", str(run / "weights.safetensors")]
    done = CliRunner().invoke(app, [*words, "--output", str(out)])
    assert done.exit_code == 0, done.output
    assert read_image(out / "0.png").shape == (3, 40, 44)
