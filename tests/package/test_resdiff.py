"""ResDiff: its modules and the method, by the released program's values and by closed forms."""

import numpy as np
import pytest
import torch
from rounding import assert_repeats
from torch import nn

from srbook.files import load_tensors
from srbook.losses import haar
from srbook.methods.diffusion import Condition
from srbook.methods.resdiff import ResDiff
from srbook.networks import FrequencySplitter, HighFrequencyAttention, ResDiffUNet, gaussian_filter
from srbook.networks.resdiff import ChannelGate
from srbook.objectives import time_of_signal
from srbook.parametrizations import to_noise
from srbook.registry import read_preset


def close(actual, expected, tolerance):
    expected = torch.as_tensor(expected)
    torch.testing.assert_close(actual.detach().to(expected), expected, rtol=0, atol=tolerance)


def numbers(name: str, vectors) -> dict[str, torch.Tensor]:
    return {key: torch.as_tensor(value) for key, value in np.load(vectors / name).items()}


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# The filter


def test_corrected_filter_is_a_high_pass_and_the_released_one_a_low_pass():
    """The gains of the facts, for 128 pixels: at frequency zero, and at the highest one."""
    for sigma, released in ((0.5, 1 - np.exp(-1)), (118 / 128, 1 - np.exp(-(128**2) / (4 * 118**2)))):
        high, low = gaussian_filter(128, 128, sigma), gaussian_filter(128, 128, sigma, as_released=True)
        close(high[0, 0], 0.0, 0)
        close(high[64, 64], released, 1e-6)
        close(low[0, 0], released, 1e-6)
        close(low[64, 64], 0.0, 0)
        assert (high[0, :65].diff() > 0).all() and (low[0, :65].diff() < 0).all()


@pytest.mark.parametrize(("size", "sigma"), [((32, 32), 16.3), ((32, 32), 22.0)])
def test_filter_is_the_formula_of_the_released_program(size, sigma):
    """Which counts bins u, v = 0..S-1 around the middle, and does not shift the spectrum."""
    u, v = torch.meshgrid(torch.arange(size[0]).double(), torch.arange(size[1]).double(), indexing="ij")
    distance = (u - size[0] / 2) ** 2 + (v - size[1] / 2) ** 2
    expected = 1 - torch.exp(-distance / (2 * sigma**2))
    given = torch.tensor(sigma / size[0], dtype=torch.float64)
    close(gaussian_filter(*size, given, as_released=True), expected, 1e-12)
    close(gaussian_filter(*size, given), torch.fft.ifftshift(expected), 1e-12)


@pytest.mark.parametrize("as_released", [False, True])
def test_filter_means_the_same_frequency_at_every_size(as_released):
    """A pattern of a quarter cycle per pixel down, and an eighth across, has the same gain in every image."""
    gains = [gaussian_filter(h, w, 0.5, as_released)[h // 4, w // 8] for h, w in ((16, 16), (32, 64), (128, 40))]
    for gain in gains[1:]:
        close(gain, gains[0], 1e-7)


@pytest.mark.parametrize("as_released", [False, True])
@pytest.mark.parametrize("size", [(8, 8), (7, 10), (1, 9)])
def test_filtered_images_stay_real(size, as_released):
    filtered = torch.fft.ifft2(torch.fft.fft2(normal(2, 3, *size)) * gaussian_filter(*size, 0.4, as_released))
    close(filtered.imag, torch.zeros(2, 3, *size), 1e-12)


def test_filter_takes_one_width_per_image():
    widths = torch.tensor([0.5, 0.8]).view(2, 1, 1, 1)
    both = gaussian_filter(6, 8, widths)
    assert both.shape == (2, 1, 6, 8)
    for gain, width in zip(both[:, 0], (0.5, 0.8), strict=True):
        close(gain, gaussian_filter(6, 8, width), 1e-7)


def test_filter_refuses_wrong_inputs():
    with pytest.raises(ValueError, match="height must be an integer of at least 1, got 0"):
        gaussian_filter(0, 8, 0.5)
    for sigma in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="sigma must be positive, in cycles per pixel"):
            gaussian_filter(8, 8, sigma)


# The modules


def released_splitter(vectors, as_released: bool) -> FrequencySplitter:
    state, _ = load_tensors(vectors / "resdiff_tiny_fdsplit.safetensors")
    names = {"profile": "noise_func", "low": "channel_transform"}
    names = {f"{ours}.{part}": f"{theirs}.{part}" for ours, theirs in names.items() for part in ("weight", "bias")}
    for ours, theirs in (("noise", "noise"), ("sigma", "sigma"), ("filter", "HF_guided")):
        for layer in (0, 2):
            names[f"{ours}_gate.layers.{layer}.weight"] = f"{theirs}_resSE.fc.{layer}.weight"
    splitter = FrequencySplitter(32, 8, as_released)
    splitter.load_state_dict({ours: state[theirs] for ours, theirs in names.items()})
    return splitter.double()


def test_splitter_reproduces_the_released_one(vectors):
    known = numbers("resdiff_modules.npz", vectors)
    predicted, noisy = known["fd_x"].chunk(2, dim=1)
    embedding = known["fd_noise_embed"][:, 0]
    released, corrected = (released_splitter(vectors, as_released) for as_released in (True, False))
    out = released(predicted, noisy, embedding)
    close(out, known["fd_out_batch2"], 1e-10)
    close(released(predicted[:1], noisy[:1], embedding[:1]), known["fd_out_first_alone"], 1e-10)
    assert (out[:1] - known["fd_out_first_alone"]).abs().max() > 1  # the first defect: images see each other
    out = corrected(predicted, noisy, embedding)
    close(out[:, :9], known["fd_out_batch2"][:, :9], 1e-10)
    close(out[:1], corrected(predicted[:1], noisy[:1], embedding[:1]).detach(), 1e-12)  # and not here


def test_splitter_is_its_formula(vectors):
    """The three made maps of the corrected splitter, written out with numpy."""
    splitter = released_splitter(vectors, as_released=False)
    state = {name: tensor.numpy() for name, tensor in splitter.state_dict().items()}

    def gate(x: np.ndarray, name: str) -> np.ndarray:
        hidden = np.maximum(state[f"{name}.layers.0.weight"] @ x.mean(axis=(1, 2)), 0)
        return x + x / (1 + np.exp(-(state[f"{name}.layers.2.weight"] @ hidden)))[:, None, None]

    predicted, noisy, embedding = normal(1, 3, 32, 32), normal(1, 3, 32, 32, seed=1), normal(1, 8, seed=2)
    image = predicted[0].numpy()
    tile = np.broadcast_to(state["profile.weight"] @ embedding[0].numpy() + state["profile.bias"], (3, 32, 32))
    gated = noisy[0].numpy() * gate(tile, "noise_gate")
    spectrum = np.fft.fft2(image)
    sigma = min(abs(gate(np.concatenate([spectrum.real, spectrum.imag]), "sigma_gate").mean()) + 16, 22)
    bins = np.fft.ifftshift(np.arange(32) - 16)
    passed = spectrum * (1 - np.exp(-(bins[:, None] ** 2 + bins**2) / (2 * sigma**2)))
    parts = gate(np.concatenate([passed.real, passed.imag]), "filter_gate")
    mixed = np.einsum("oc,chw->ohw", state["low.weight"][..., 0, 0], parts) + state["low.bias"][:, None, None]
    high = np.abs(np.fft.ifft2(passed))
    expected = np.concatenate([noisy[0].numpy(), image, gated, image * mixed, high])
    close(splitter(predicted, noisy, embedding)[0], expected, 1e-10)


def test_the_learned_width_looks_at_one_pixel(vectors):
    """The mean of a spectrum over all frequencies is the first pixel, so sigma moves by one bin at most."""
    splitter, image = released_splitter(vectors, as_released=False), normal(4, 3, 32, 32).clamp(-1, 1)
    sigma = splitter.sigma(torch.fft.fft2(image))
    other = normal(4, 3, 32, 32, seed=1)
    other[..., 0, 0] = image[..., 0, 0]
    close(splitter.sigma(torch.fft.fft2(other)), sigma.detach(), 1e-12)
    assert (sigma >= 16 / 32).all() and (sigma <= 17 / 32).all() and sigma.std() > 0
    image[..., 0, 0] *= 100
    close(splitter.sigma(torch.fft.fft2(image)).amax(), 22 / 32, 1e-12)  # the cap S - 10


def test_splitter_at_other_sizes_keeps_profile_and_spectrum(vectors):
    splitter, embedding = released_splitter(vectors, as_released=False), normal(1, 8)
    noisy = torch.ones(1, 3, 40, 64, dtype=torch.float64)
    gated = splitter(torch.zeros_like(noisy), noisy, embedding)[:, 6:9]
    profile = splitter.profile(embedding)[0].detach()
    halfway = 0.75 * profile[:-1] + 0.25 * profile[1:]  # pixel 2k + 1 of the doubled width
    ratio = gated[0, :, 0, 1:-1:2].detach() / halfway
    close(ratio, ratio[:, :1].expand(-1, 31), 1e-10)
    close(gated, gated[:, :, :1].detach().expand(-1, -1, 40, -1), 0)  # all rows are alike
    # A repeated image has the same spectrum, on every second frequency: doubled sides keep the peaks' heights.
    small = normal(1, 3, 32, 32)
    large = small.repeat(1, 1, 2, 2)
    maps = [splitter(image, torch.zeros_like(image), embedding)[:, 9:] for image in (small, large)]
    weights = [made[:, :3] / image for made, image in zip(maps, (small, large), strict=True)]
    close(weights[1][..., ::2, ::2], weights[0].detach(), 1e-9)
    close(maps[1][:, 3:], maps[0][:, 3:].repeat(1, 1, 2, 2).detach(), 1e-10)


def test_cross_attention_reproduces_the_released_one(vectors):
    known = numbers("resdiff_modules.npz", vectors)
    state, _ = load_tensors(vectors / "resdiff_hf_ca.safetensors")
    attention = HighFrequencyAttention(32, 32)
    released = {"norm.weight": "norm.weight", "norm.bias": "norm.bias", "query.weight": "q.weight"}
    released |= {"key_value.weight": "kv.weight", "out.weight": "out.weight", "out.bias": "out.bias"}
    attention.load_state_dict({ours: state[theirs] for ours, theirs in released.items()})
    close(attention.double()(known["ca_x"], known["ca_query"]), known["ca_out"], 1e-10)


def test_parameter_counts_of_the_released_network():
    with torch.device("meta"):
        net = ResDiffUNet()
    assert (parameters(net.splitter), parameters(net.guides), parameters(net)) == (8_419, 1_050_240, 98_871_334)


def tiny_network(size: int = 32, as_released: bool = False, dropout: float = 0.0) -> ResDiffUNet:
    torch.manual_seed(0)
    arguments = {"width": 8, "multipliers": (1, 2, 2), "blocks": 1, "attention": (), "groups": 4, "dropout": dropout}
    return ResDiffUNet(size, **arguments, as_released=as_released)


def test_guides_change_the_halved_shortcuts_only():
    """With the guides' outputs at zero, the network is its U-Net on the maps; details then change nothing."""
    net, x, time = tiny_network(), torch.randn(2, 6, 32, 24), torch.tensor([0.3, 0.9])
    embedding = net.unet.time(time)
    maps = net.splitter(*x.chunk(2, dim=1), embedding)
    plain = net.unet(maps, time).detach()
    assert (net(x, time) - plain).abs().max() > 1e-3
    seen = []
    net.unet.walk(maps, embedding, lambda halving, shortcut: seen.append((halving, shortcut.shape[1:])) or shortcut)
    assert seen == [(0, (8, 16, 12)), (1, (16, 8, 6))]
    for guide in net.guides:
        nn.init.zeros_(guide.out.weight)
    close(net(x, time), plain, 1e-6)


def test_guides_ask_with_the_details_of_their_level():
    net, x, time = tiny_network(), torch.randn(1, 6, 32, 32), torch.tensor([0.5])
    asked = []
    for guide in net.guides:
        guide.register_forward_pre_hook(lambda module, inputs: asked.append(inputs[1]))
    net(x, time)
    _, details = haar(x[:, :3], 2)
    for query, bands in zip(asked, details, strict=True):
        close(query, bands[:, :, 0] + bands[:, :, 1] + bands[:, :, 2], 1e-6)


@pytest.mark.parametrize("as_released", [False, True])
def test_every_weight_matters(as_released):
    net, time = tiny_network(as_released=as_released), torch.tensor([0.2, 0.9])
    net(torch.randn(2, 6, 32, 32), time).square().sum().backward()
    assert [name for name, weight in net.named_parameters() if not weight.grad.any()] == []


def test_network_computes_in_half_precision():
    net, x, time = tiny_network(), torch.randn(1, 6, 32, 40), torch.tensor([0.5])
    expected = net(x, time).detach()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = net(x, time)
    pure = net.bfloat16()(x.bfloat16(), time)
    for out in (mixed, pure):
        assert out.dtype == torch.bfloat16
        close(out.float(), expected, 0.1 * float(expected.abs().max()))


def test_network_starts_orthogonal():
    net = tiny_network()
    for layer in (*net.splitter.modules(), *net.guides.modules()):
        if isinstance(layer, nn.Conv2d | nn.Linear):
            rows = layer.weight.detach().flatten(1)
            product = rows @ rows.T if rows.shape[0] <= rows.shape[1] else rows.T @ rows
            close(product, torch.eye(len(product)), 1e-5)


def test_channel_gate_lies_between_one_and_two():
    gate, x = ChannelGate(4), torch.rand(2, 4, 3, 3) + 0.1
    factor = gate(x) / x
    assert (factor > 1).all() and (factor < 2).all()
    close(factor, factor[..., :1, :1].detach().expand_as(factor), 1e-6)


def test_networks_refuse_wrong_inputs():
    with pytest.raises(ValueError, match="size must be at least 20"):
        FrequencySplitter(16)
    with pytest.raises(ValueError, match=r"give two levels, got \(1,\)"):
        ResDiffUNet(multipliers=(1,))
    net = tiny_network()
    with pytest.raises(ValueError, match=r"multiples of 4, got \(32, 30\)"):
        net(torch.zeros(1, 6, 32, 30), torch.zeros(1))
    with pytest.raises(ValueError, match=r"time must have shape \(1,\)"):
        net(torch.zeros(1, 6, 32, 32), torch.zeros(2))


# The method


def preset(name: str, **overrides) -> ResDiff:
    return ResDiff(**(read_preset(name).arguments | overrides))


def tiny(multipliers: tuple[int, ...] = (1, 2, 2), **overrides) -> ResDiff:
    torch.manual_seed(0)
    network = {"size": 32, "width": 8, "multipliers": multipliers, "blocks": 1, "attention": [], "groups": 4}
    return preset("resdiff-tiny", network={**network, "dropout": 0.0}, **overrides)


class Given(nn.Module):
    """A network that predicts what it is given, and remembers what it was shown."""

    def __init__(self, noise: torch.Tensor):
        super().__init__()
        self.noise, self.shown = noise, []

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        self.shown.append((x, time))
        return self.noise


def test_presets_have_the_stated_sizes():
    with torch.device("meta"):
        counts = {name: preset(f"resdiff-{name}") for name in ("ffhq", "small", "tiny")}
    ffhq = counts["ffhq"]
    assert (parameters(ffhq.network), parameters(ffhq.predictor)) == (98_871_334, 34_128)
    assert (parameters(counts["small"]), parameters(counts["tiny"])) == (2_304_278, 1_025_734)
    for name in counts:
        assert tuple(read_preset(f"resdiff-{name}").training) == ResDiff.stage_names()


@pytest.mark.arithmetic
@pytest.mark.parametrize("clip", [False, True])
def test_reverse_steps_are_the_released_ones(vectors, clip):
    """The method's path, denoiser, and time input, at the stored steps; the program's variable is z."""
    known = numbers("psample_resdiff_T1000.npz", vectors)
    method = tiny()
    method.network = Given(known["eps_pred"])
    predicted = normal(*known["x_t"].shape)
    condition = Condition((predicted + 1) / 2, context=predicted)
    anchor = condition.anchor
    x_t = anchor + 0.5 * known["x_t"]
    for i, step in enumerate(known["t"].tolist()):
        t = step + 1
        x0 = method.denoise(x_t, torch.full((2,), float(t), dtype=torch.float64), condition, clip=clip)
        mean, std = method.path.posterior(x_t, x0, anchor, t, t - 1)
        close((mean - anchor) / 0.5, known["mean_clip" if clip else "mean_noclip"][i], 1e-10)
        if step > 0:
            close((std / 0.5) ** 2, known["posterior_variance"][step], 1e-12)
        shown, level = method.network.shown[-1]
        close(level, known["alphas_cumprod"][step].sqrt().expand(2), 1e-12)
        close(shown, torch.cat([predicted, known["x_t"]], dim=1), 1e-12)


def test_training_loss_is_the_released_one(vectors):
    known = numbers("losses_sr3_resdiff_ddpm_esrdf.npz", vectors)
    method = tiny()
    method.network = Given(known["eps_pred"])
    level = known["resdiff_sqrt_gamma"][:, 0].double()
    signals = method.path.signal(torch.arange(1001).double())
    step = (signals[None] > level[:, None]).sum(1).double()  # the first whole time whose signal is not above
    t = time_of_signal(method.path, step, level.log())
    close(method.path.signal(t), level, 1e-12)
    condition, x0 = Condition((known["sr"] + 1) / 2, context=known["sr"]), (known["hr"] + 1) / 2
    loss = method.losses(x0, condition, t, known["noise"])["loss"]
    shown, told = method.network.shown[0]
    close(shown, known["resdiff_net_input"], 1e-6)
    close(told, level, 1e-12)
    close(loss * known["noise"].numel(), known["resdiff_loss_sum"], 1e-6)


def test_levels_are_drawn_between_the_steps():
    method = tiny()
    t = method.draw_times(4000, torch.Generator().manual_seed(0), torch.device("cpu"))
    assert (t != t.round()).all() and 0 <= t.min() < 10 and 990 < t.max() <= 1000
    assert abs(t.mean() - 500) < 3 * 1000 / np.sqrt(12 * 4000)


def test_predictor_loss_is_the_weighted_sum(vectors):
    known = numbers("resdiff_cnn_and_losses.npz", vectors)
    released = tiny().prediction_terms(known["a"], known["b"])
    close(released["loss"], known["total_loss"], 1e-10)
    close(released["pixel"], known["pixel_mse"], 1e-10)
    other = tiny(pixel_weight=1.0, fourier_weight=0.0, wavelet_weight=0.5).prediction_terms(known["a"], known["b"])
    close(other["loss"], known["pixel_mse"] + 0.5 * known["dwt_loss"], 1e-10)


def pair(count: int = 2, side: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    hr = torch.rand(count, 3, 4 * side, 4 * side, generator=generator)
    return hr, nn.functional.avg_pool2d(hr, 4)


@pytest.mark.arithmetic
@pytest.mark.parametrize("stage", ResDiff.stage_names())
def test_a_stage_trains_its_own_weights(stage):
    method = tiny()
    method.begin(stage)
    method.loss(*pair(), torch.Generator().manual_seed(0))["loss"].backward()
    trained = {name for name, weight in method.named_parameters() if weight.grad is not None and weight.grad.any()}
    prefix = "predictor." if stage == "predictor" else "network."
    assert trained == {name for name, _ in method.named_parameters() if name.startswith(prefix)}


def test_predictor_gets_no_gradient_before_any_stage_is_begun():
    method = tiny()
    method.loss(*pair(), torch.Generator().manual_seed(0))["loss"].backward()
    assert all(weight.grad is None for weight in method.predictor.parameters())


def test_the_anchor_is_the_predicted_image():
    method, (_, lr) = tiny(), pair()
    condition = method.condition(lr)
    close(condition.anchor, method.predictor(lr).clamp(0, 1).detach(), 0)
    close(condition.context, 2 * condition.anchor - 1, 0)
    method.begin("predictor")
    result = method.upscale(lr)
    close(result.image, condition.anchor, 1e-6)
    assert result.nfe == 1
    with pytest.raises(ValueError, match="one step, got steps=5"):
        method.upscale(lr, steps=5)


def test_perfect_noise_prediction_gives_back_the_image():
    """When the network knows the noise, every level of sampling ends at the truth: the whole chain is consistent."""
    method, (hr, lr) = tiny(), pair()
    hr = 0.3 * hr + 0.35  # within one scale of the predicted image, where sampling clips
    anchor = method.condition(lr).anchor

    def predict(x_t: torch.Tensor, t: torch.Tensor, condition: Condition) -> torch.Tensor:
        return to_noise(method.path, "x0", hr, x_t, anchor, t)

    method.predict = predict
    result = method.upscale(lr, generator=torch.Generator().manual_seed(0))
    close(result.image, hr, 1e-4)
    assert result.nfe == 20


def test_upscale_takes_any_size_and_repeats_with_a_seed():
    method, lr = tiny().eval(), torch.rand(2, 3, 7, 9)
    one, again, other = (method.upscale(lr, steps=2, generator=torch.Generator().manual_seed(s)) for s in (3, 3, 4))
    assert one.image.shape == (2, 3, 28, 36) and one.nfe == 2
    assert one.image.min() >= 0 and one.image.max() <= 1
    assert_repeats(one.image, again.image, other.image)
    deep = tiny(multipliers=(1, 1, 1, 1, 1)).eval()
    assert deep.multiple == 16
    assert deep.upscale(lr, steps=1).image.shape == (2, 3, 28, 36)


def test_method_refuses_wrong_weights():
    for weights in ({"pixel_weight": -1.0}, {"fourier_weight": 0.0, "wavelet_weight": 0.0}):
        with pytest.raises(ValueError, match="must not be negative nor all 0, got"):
            tiny(**weights)
    with pytest.raises(ValueError, match="stages predictor, diffusion, got 'main'"):
        tiny().begin("main")
