"""Proofs about HF-Diff: the way back through couplings, what features weigh, means of features, and the divergence."""

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import sympy as sp
import torch
from torch import Tensor, nn
from torch.func import jacrev
from torch.nn.functional import avg_pool2d

from srbook.losses import jensen_shannon
from srbook.networks import Coupling, FrequencyExtractor, InvertibleNetwork


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def awake(network: nn.Module, strength: float = 0.3) -> nn.Module:
    """In double precision, and with weights also where it starts at 0."""
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in network.double().parameters():
            weight.add_(strength * torch.randn_like(weight))
    return network.requires_grad_(False)


def log_determinant(network: InvertibleNetwork, x: Tensor) -> float:
    """By the theorem: the exponents and, per pixel, the matrices that mix."""
    total = 0.0
    for coupling in network:
        matrix = torch.eye(x.shape[1]) if coupling.mixing is None else coupling.mixing.weight[:, :, 0, 0]
        u, v = (x if coupling.mixing is None else coupling.mixing(x)).chunk(2, dim=1)
        total += x[0, 0].numel() * torch.linalg.slogdet(matrix).logabsdet.item()
        total += coupling._factor(v + coupling.shift(u)).log().sum().item()
        x = coupling(x)
    return total


def flat(of: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The Jacobian as a matrix."""
    jacobian = jacrev(of)(x)
    return jacobian.reshape(-1, x.numel())


class Pooled(nn.Module):
    """A function that has no inverse: most of its input does not matter."""

    def forward(self, x: Tensor) -> Tensor:
        return x.relu().amax(dim=(2, 3), keepdim=True).round().expand_as(x)


@pytest.mark.parametrize("bound", [2.0, None])
def test_couplings_are_undone_whatever_is_inside(bound: float | None):
    coupling, x = awake(Coupling(4, bound=bound)), normal(2, 4, 5, 6)
    torch.testing.assert_close(coupling.inverse(coupling(x)), x)
    coupling.shift, coupling.scale, coupling.offset = Pooled(), Pooled(), Pooled()
    torch.testing.assert_close(coupling.inverse(coupling(x)), x)
    u, v = coupling.mixing(x).chunk(2, dim=1)
    v = v + coupling.shift(u)
    u = u * coupling._factor(v) + coupling.offset(v)
    torch.testing.assert_close(coupling(x), torch.cat([u, v], dim=1))
    lost = coupling.mixing.weight
    lost[1] = lost[0]  # a singular matrix
    (direction,) = torch.linalg.svd(lost[:, :, 0, 0]).Vh[-1:]
    torch.testing.assert_close(coupling(x + direction.view(1, -1, 1, 1)), coupling(x))


@pytest.mark.parametrize("mixing", [True, False])
@pytest.mark.parametrize("bound", [2.0, None])
def test_the_log_determinant_is_the_sum_of_exponents(mixing: bool, bound: float | None):
    network, x = awake(InvertibleNetwork(4, 3, mixing=mixing, bound=bound), 0.2), normal(1, 4, 3, 3)
    found = torch.linalg.slogdet(flat(network, x)).logabsdet.item()
    assert found == pytest.approx(log_determinant(network, x), rel=1e-8)
    assert abs(found) > 0.1


def test_the_first_block_is_undone_where_it_is_monotone():
    """The iteration converges at least as fast as the constants say; without them two images can share one."""
    network = FrequencyExtractor(2, width=8, depth=1).double().requires_grad_(False)
    x, matrix = normal(1, 3, 6, 6), network.entry.weight[:, :, 0, 0]

    def reduced(of: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda x: torch.einsum("ij,njhw->nihw", torch.linalg.pinv(matrix), of(x))

    rate = torch.linalg.matrix_norm(flat(reduced(network.body), x), 2)
    network.body[2].weight.mul_(0.5 / rate)
    least, most = 0.5, 1.5  # at x; elsewhere other ReLUs are on, so the bounds are checked below
    block = reduced(lambda x: network.entry(x) + network.body(x))
    for seed in range(5):
        other = x + normal(1, 3, 6, 6, seed=seed)
        difference, image = other - x, block(other) - block(x)
        assert (difference * image).sum() >= least * difference.square().sum()
        assert image.norm() <= most * difference.norm()
    guess, step, errors = torch.zeros_like(x), least / most**2, []
    for _ in range(300):
        errors.append((guess - x).norm().item())
        guess = guess - step * (block(guess) - block(x))
    torch.testing.assert_close(guess, x)
    factor = math.sqrt(1 - (least / most) ** 2)
    assert all(after <= factor * before + 1e-12 for before, after in pairwise(errors))
    fold = [x + (-2) * max(x, 0) for x in (1.0, -1.0)]  # W = 1 and r(x) = -2 relu(x)
    assert fold[0] == fold[1]


def test_a_distance_of_features_is_quadratic_and_its_weights_multiply_to_the_determinant():
    network, x, d = awake(InvertibleNetwork(4, 2), 0.2), normal(1, 4, 3, 3), normal(1, 4, 3, 3, seed=1)
    jacobian = flat(network, x)
    weights = jacobian.mT @ jacobian
    remainders = []
    for size in (1e-4, 0.5e-4):
        distance = (network(x + size * d) - network(x)).square().sum()
        remainders.append((distance - size**2 * d.flatten() @ weights @ d.flatten()).abs().item() / size**3)
    assert remainders[1] <= 1.1 * remainders[0] + 1e-6  # of third order
    values = torch.linalg.eigvalsh(weights)
    mean = values.log().mean().exp().item()
    assert mean == pytest.approx(math.exp(2 * log_determinant(network, x) / x.numel()))
    assert values.mean() >= mean and values.min() > 0
    noise = normal(20_000, x.numel(), seed=2)
    spread = ((noise @ weights) * noise).sum(dim=1)
    assert spread.mean() == pytest.approx(values.sum().item(), abs=5 * spread.std().item() / math.sqrt(len(noise)))


def test_the_best_image_is_the_mean_of_features():
    network, images = awake(InvertibleNetwork(4, 2), 0.2), normal(5, 4, 2, 2)
    share = torch.softmax(normal(5, seed=1), dim=0).view(-1, 1, 1, 1)

    def expected(features: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
        return (share * (features(images) - features(image)).square()).sum()

    for features in (network, lambda x: avg_pool2d(x, 2), lambda x: x.relu().cumsum(dim=2)):
        mean, other = (share * features(images)).sum(dim=0, keepdim=True), normal(1, 4, 2, 2, seed=3)
        spread = (share * (features(images) - mean).square()).sum()
        torch.testing.assert_close(expected(features, other), spread + (mean - features(other)).square().sum())
        draws = torch.stack([expected(features, image) for image in images.split(1)])
        torch.testing.assert_close((share.flatten() * draws).sum(), 2 * spread)
    best = network.inverse((share * network(images)).sum(dim=0, keepdim=True))
    least = expected(network, best)
    assert all(expected(network, best + 0.1 * normal(1, 4, 2, 2, seed=seed)) > least for seed in range(20))
    average = (share * images).sum(dim=0, keepdim=True)
    assert (best - average).abs().max() > 0.01
    matrix = normal(9, 16, seed=4).mT @ normal(9, 16, seed=5) + 3 * torch.eye(16, dtype=torch.float64)
    linear = torch.linalg.solve(matrix, matrix @ (share.flatten() @ images.flatten(1)))
    torch.testing.assert_close(linear, average.flatten())


def test_the_divergence_is_the_information_in_one_draw():
    """Between 0 and ln 2, 0 for equal and ln 2 for disjoint distributions; by SymPy for two values."""
    p, q = (torch.softmax(3 * normal(200, 6, seed=seed), dim=1) for seed in (0, 1))
    middle = (p + q) / 2

    def entropy(r: Tensor) -> Tensor:
        return -torch.special.xlogy(r, r).sum(dim=1)

    found = jensen_shannon(p.log(), q.log())
    torch.testing.assert_close(found, entropy(middle) - (entropy(p) + entropy(q)) / 2)
    posterior = p / (p + q)  # that the coin fell on p
    coin = -(torch.special.xlogy(posterior, posterior) + torch.special.xlogy(1 - posterior, 1 - posterior))
    torch.testing.assert_close(found, math.log(2) - (middle * coin).sum(dim=1))
    assert (found > 0).all() and (found < math.log(2)).all()
    apart = torch.tensor([[0.5, 0.5, 0.0, 0.0]]).double().log(), torch.tensor([[0.0, 0.0, 0.3, 0.7]]).double().log()
    assert jensen_shannon(*apart).item() == pytest.approx(math.log(2))
    a, b = sp.symbols("a b", positive=True)
    of_two = [(a, b), (1 - a, 1 - b)]
    divergence = sum((x * sp.log(2 * x / (x + y)) + y * sp.log(2 * y / (x + y))) / 2 for x, y in of_two)
    assert sp.simplify(divergence.subs(b, a)) == 0
    assert sp.simplify(sp.diff(divergence, a) - sp.log(a / (a + b)) / 2 + sp.log((1 - a) / (2 - a - b)) / 2) == 0


def test_the_gradient_of_the_divergence():
    u, w = normal(3, 7).requires_grad_(), normal(3, 7, seed=1)
    (found,) = torch.autograd.grad(jensen_shannon(u, w).sum(), u)
    p, q = torch.softmax(u.detach(), dim=1), torch.softmax(w, dim=1)
    ratio = (2 * p / (p + q)).log()
    by_hand = 0.5 * p * (ratio - (p * ratio).sum(dim=1, keepdim=True))
    torch.testing.assert_close(found, by_hand)
    assert by_hand.sum(dim=1).abs().max() < 1e-12


def test_a_softmax_ignores_the_mean_and_weighs_by_itself():
    e, d = normal(4, 9), normal(4, 9, seed=1)
    torch.testing.assert_close(jensen_shannon(e + 3.0, e + d), jensen_shannon(e, e + d))
    for temperature in (0.5, 1.0, 4.0):
        p = torch.softmax(e / temperature, dim=1)
        variance = (p * d.square()).sum(dim=1) - (p * d).sum(dim=1).square()
        ratios = [
            8 * temperature**2 * jensen_shannon(e / temperature, (e + size * d) / temperature) / (size**2 * variance)
            for size in (1e-2, 1e-3)
        ]
        torch.testing.assert_close(ratios[1], torch.ones_like(e[:, 0]), atol=1e-2, rtol=0)
        assert ((ratios[1] - 1).abs() <= (ratios[0] - 1).abs() + 1e-6).all()
    warm = 8 * 1e6 * jensen_shannon(e / 1e3, (e + d) / 1e3)
    torch.testing.assert_close(warm, d.var(dim=1, unbiased=False), rtol=1e-2, atol=0)
    far = (1e3 * torch.eye(2, 9, dtype=torch.float64)).requires_grad_()
    value = jensen_shannon(far[:1], far[1:].detach())
    value.backward()
    assert value.item() == pytest.approx(math.log(2)) and far.grad.abs().max() < 1e-12
