"""The proofs of chapter 9: gradients of a flow by the adjoint equation, and what a loss on samples asks for."""

from itertools import pairwise

import pytest
import sympy
import torch
from numpy.testing import assert_allclose
from torch import Tensor, nn

from srbook.losses import feature_distance
from srbook.paths import ContinuousVP
from srbook.samplers import probability_flow

PATH, LAST = ContinuousVP(), 1 / 3000
ZERO = torch.zeros((), dtype=torch.float64)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# The adjoint equation


def test_the_adjoint_of_a_linear_flow() -> None:
    """dx/dt = theta x + c from t = 1 down to d, with symbols: the state's gradient, and those of theta, c, and x(1)."""
    theta, c, start, d, t = sympy.symbols("theta c x1 d t", positive=True)
    x = (start + c / theta) * sympy.exp(theta * (t - 1)) - c / theta
    assert sympy.simplify(x.diff(t) - theta * x - c) == 0 and sympy.simplify(x.subs(t, 1) - start) == 0
    end = x.subs(t, d)
    loss = end**2
    psi = 2 * end * sympy.exp(theta * (d - t))
    assert sympy.simplify(psi.diff(t) + theta * psi) == 0 and sympy.simplify(psi.subs(t, d) - 2 * end) == 0
    assert sympy.simplify(psi.subs(t, 1) - loss.diff(start)) == 0
    for weight, slope in ((theta, x), (c, sympy.Integer(1))):  # the slope of theta x + c by this weight
        integral = -sympy.integrate(sympy.expand(psi * slope), (t, d, 1))
        numbers = {theta: 0.7, c: 0.3, start: 1.1, d: 0.2}
        assert float((integral - loss.diff(weight)).subs(numbers)) == pytest.approx(0, abs=1e-12)


@pytest.fixture
def field() -> nn.Module:
    """A smooth velocity of four values and the time."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 4)).double()


def velocity(field: nn.Module, x: Tensor, t: float) -> Tensor:
    return field(torch.cat([x, x.new_tensor([t])]))


def walk(field: nn.Module, x: Tensor, times: list[float]) -> list[Tensor]:
    """The states of a fourth-order solver."""
    states = [x]
    for t, s in pairwise(times):
        h = s - t
        first = velocity(field, x, t)
        second = velocity(field, x + h / 2 * first, t + h / 2)
        third = velocity(field, x + h / 2 * second, t + h / 2)
        x = x + h / 6 * (first + 2 * second + 2 * third + velocity(field, x + h * third, s))
        states.append(x)
    return states


def falling(steps: int) -> list[float]:
    return torch.linspace(1, 0.1, steps + 1, dtype=torch.float64).tolist()


def backward_slopes(field: nn.Module, state: list[Tensor], t: float) -> list[Tensor]:
    """What x, the adjoint state, and the gradient of the weights change by, per unit of t."""
    x = state[0].detach().requires_grad_()
    u = velocity(field, x, t)
    by_state, *by_weights = torch.autograd.grad(u, [x, *field.parameters()], state[1])
    return [u.detach(), -by_state, *(-slope for slope in by_weights)]


def solve_back(field: nn.Module, end: Tensor, gradient: Tensor, steps: int) -> list[list[Tensor]]:
    """All states (x, psi, weights) of the adjoint equation from t = 0.1 up to 1, fourth order."""
    state = [end.detach(), gradient, *(torch.zeros_like(weight) for weight in field.parameters())]
    states = [state]

    def moved(slopes: list[Tensor], h: float) -> list[Tensor]:
        return [value + h * slope for value, slope in zip(state, slopes, strict=True)]

    for t, s in pairwise(falling(steps)[::-1]):
        h = s - t
        k1 = backward_slopes(field, state, t)
        k2 = backward_slopes(field, moved(k1, h / 2), t + h / 2)
        k3 = backward_slopes(field, moved(k2, h / 2), t + h / 2)
        k4 = backward_slopes(field, moved(k3, h), s)
        state = [x + h / 6 * (a + 2 * b + 2 * c + d) for x, a, b, c, d in zip(state, k1, k2, k3, k4, strict=True)]
        states.append(state)
    return states


def test_the_adjoint_state_is_the_gradient_by_the_state(field: nn.Module) -> None:
    """At every time: psi from its equation against back-propagation through the rest of the flow."""
    states = walk(field, draw(4).requires_grad_(), falling(60))
    loss = states[-1].square().sum()
    expected = torch.autograd.grad(loss, states, retain_graph=True)
    found = solve_back(field, states[-1], 2 * states[-1].detach(), 60)
    for k in (0, 13, 60):
        assert_allclose(found[60 - k][1], expected[k], rtol=1e-6, atol=1e-8)
        assert_allclose(found[60 - k][0], states[k].detach(), rtol=1e-6, atol=1e-8)  # the state comes back, too


def test_the_gradient_of_the_weights_is_an_integral(field: nn.Module) -> None:
    end = walk(field, draw(4), falling(60))[-1]
    expected = torch.autograd.grad(end.square().sum(), list(field.parameters()))
    found = solve_back(field, end, 2 * end.detach(), 60)[-1][2:]
    for one, other in zip(found, expected, strict=True):
        assert_allclose(one, other, rtol=1e-6, atol=1e-8)


def test_a_change_of_the_weights_is_carried_to_the_end(field: nn.Module) -> None:
    """The identity of the proof: psi times the perturbation of the state grows by psi times the slope of u."""
    direction = [draw(*weight.shape, seed=k) for k, weight in enumerate(field.parameters())]
    times, start, step = falling(60), draw(4), 1e-5

    def shifted(sign: int) -> list[Tensor]:
        with torch.no_grad():
            for weight, change in zip(field.parameters(), direction, strict=True):
                weight += sign * step * change
            states = walk(field, start, times)
            for weight, change in zip(field.parameters(), direction, strict=True):
                weight -= sign * step * change
        return states

    moved = [(up - down) / (2 * step) for up, down in zip(shifted(1), shifted(-1), strict=True)]
    states = walk(field, start, times)
    back = solve_back(field, states[-1], 2 * states[-1].detach(), 60)[::-1]
    for k in (20, 60):
        carried = sum((g * change).sum() for g, change in zip(back[k][2:], direction, strict=True))
        whole = sum((g * change).sum() for g, change in zip(back[0][2:], direction, strict=True))
        assert (back[k][1] @ moved[k]).item() == pytest.approx((whole - carried).item(), rel=1e-5)


def gaussian_denoiser(mean: Tensor, spread: Tensor):
    def denoise(x: Tensor, t: Tensor) -> Tensor:
        a, s = (f(t).reshape(-1, 1, 1, 1) for f in (PATH.signal, PATH.level))
        return mean + a * spread**2 / (a**2 * spread**2 + s**2) * (x - a * mean)

    return denoise


def end_of_gaussian_flow(start: Tensor, mean: Tensor, spread: Tensor) -> Tensor:
    """The flow of a Gaussian keeps (x - a m) in proportion to its standard deviation."""
    (a, s), (end_a, end_s) = ((PATH.signal(t), PATH.level(t)) for t in (1.0, LAST))
    ratio = ((end_a**2 * spread**2 + end_s**2) / (a**2 * spread**2 + s**2)).sqrt()
    return end_a * mean + ratio * (start - a * mean)


@pytest.mark.parametrize("way", ["adjoint", "backprop"])
def test_gradients_through_the_flow_of_a_gaussian(way: str) -> None:
    """By mean, spread, and start: both ways against automatic differentiation of the closed form."""
    start, target = draw(1, 3, 4, 4), draw(1, 3, 4, 4, seed=1)
    weights = [torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (0.2, 0.3)]
    leaves = [*weights, start.clone().requires_grad_()]
    exact = (end_of_gaussian_flow(leaves[2], *weights) - target).square().mean()
    expected = torch.autograd.grad(exact, leaves)
    result = probability_flow(
        PATH,
        gaussian_denoiser(*weights),
        leaves[2],
        ZERO,
        [1.0, LAST],
        solver="dopri5",
        rtol=1e-8,
        atol=1e-8,
        adjoint=weights if way == "adjoint" else None,
    )
    loss = (result.image - target).square().mean()
    assert loss.item() == pytest.approx(exact.item(), rel=1e-6)
    for found, wanted in zip(torch.autograd.grad(loss, leaves), expected, strict=True):
        assert_allclose(found, wanted, rtol=1e-5, atol=1e-8)


def test_what_is_not_named_gets_no_gradient() -> None:
    """The released encoder's case: it is inside the velocity, and outside of the adjoint equation."""
    settings = {"solver": "dopri5", "rtol": 1e-6, "atol": 1e-6}
    found = {}
    for way in ("adjoint", "backprop"):
        mean, spread = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (0.2, 0.3))
        adjoint = [mean] if way == "adjoint" else None
        denoise = gaussian_denoiser(mean, spread)
        image = probability_flow(PATH, denoise, draw(1, 1, 2, 2), ZERO, [1.0, LAST], **settings, adjoint=adjoint).image
        image.square().sum().backward()
        found[way] = mean.grad, spread.grad
    assert found["adjoint"][1] is None and found["backprop"][1].abs() > 0.1
    assert_allclose(found["adjoint"][0], found["backprop"][0], rtol=1e-4)


def euler_gradients(theta: float, steps: int) -> tuple[float, float, float]:
    """Of x after a unit of time by theta, for dx/dt = theta x and x = 1: backward, adjoint, and exact."""
    weight = torch.tensor(theta, dtype=torch.float64, requires_grad=True)
    x, h = torch.ones((), dtype=torch.float64), 1 / steps
    for _ in range(steps):
        x = x + h * weight * x
    (backward,) = torch.autograd.grad(x, weight)
    x, psi, gradient = x.item(), 1.0, 0.0
    for _ in range(steps):  # back in time, from the end found above
        x, psi, gradient = x - h * theta * x, psi + h * theta * psi, gradient + h * psi * x
    return backward.item(), gradient, torch.exp(weight).item()


def test_two_gradients_of_one_flow_by_euler() -> None:
    """Back-propagation differentiates the solver exactly; the adjoint equation, solved by Euler, something else.

    Both approach the gradient of the exact flow as fast as the step goes to zero.
    """
    theta = 0.8
    for steps in (10, 20, 40):
        h = 1 / steps
        backward, adjoint, exact = euler_gradients(theta, steps)
        assert backward == pytest.approx((1 + h * theta) ** (steps - 1), rel=1e-12)
        change = (1 + theta / steps + 1e-6 / steps) ** steps - (1 + theta / steps - 1e-6 / steps) ** steps
        assert backward == pytest.approx(change / 2e-6, rel=1e-6)
        end = (1 + h * theta) ** steps
        kept = [end * (1 - h * theta) ** k * (1 + h * theta) ** k for k in range(steps)]
        assert adjoint == pytest.approx(h * sum(kept), rel=1e-12)
        assert abs(backward - adjoint) > 0.1 * h
        assert abs(backward - exact) < 3 * h and abs(adjoint - exact) < 3 * h
    halved = [abs(euler_gradients(theta, steps)[0] - euler_gradients(theta, steps)[1]) for steps in (100, 200)]
    assert halved[0] / halved[1] == pytest.approx(2, rel=0.02)


# What the loss on samples asks for


def test_a_sample_pays_more_than_a_median() -> None:
    """For any distribution: not less than the least mean distance, not more than twice it, least only at a median."""
    values = draw(9)
    weights = torch.softmax(draw(9, seed=1), 0)
    distance = (values[:, None] - values[None]).abs()
    to_fixed = distance @ weights  # the mean distance from each value
    least = to_fixed.min()
    grid = torch.linspace(-3, 3, 6001, dtype=torch.float64)
    assert ((grid[:, None] - values).abs() @ weights).min() >= least - 1e-12  # a median is among the values
    for said in (weights, torch.softmax(draw(9, seed=2), 0), torch.eye(9, dtype=torch.float64)[3]):
        assert said @ to_fixed >= least - 1e-12
    assert least < weights @ to_fixed <= 2 * least
    assert torch.eye(9, dtype=torch.float64)[to_fixed.argmin()] @ to_fixed == least


def test_samples_of_a_gaussian_pay_root_two() -> None:
    """The distance of features between independent draws and from the mean, by symbols and with `feature_distance`."""
    u, v = sympy.symbols("u v", positive=True)
    density = sympy.exp(-(u**2) / (2 * v)) / sympy.sqrt(2 * sympy.pi * v)
    mean_distance = 2 * sympy.integrate(u * density, (u, 0, sympy.oo))
    assert sympy.simplify(mean_distance.subs(v, 2 * v) / mean_distance - sympy.sqrt(2)) == 0
    truth, sample = draw(2, 200_000).view(2, 200, 1, 1, 1000).unbind(0)
    pays, least = (feature_distance(image, truth, lambda x: 3 * x) for image in (sample, torch.zeros_like(sample)))
    assert (pays / least).item() == pytest.approx(2**0.5, rel=0.01)


def test_shrinking_the_spread_lowers_the_loss() -> None:
    """Samples that keep a share k of the right spread pay sqrt(1 + k^2) times the least: the slope is not zero."""
    truth, sample = draw(2, 200_000).unbind(0)
    for share in (0.0, 0.3, 0.6, 1.0):
        pays = (share * sample - truth).abs().mean() / truth.abs().mean()
        assert pays.item() == pytest.approx((1 + share**2) ** 0.5, rel=0.01)


def test_what_the_early_stop_leaves() -> None:
    """At tau = 1/3000 the state has noise of 0.0059 sigma and a signal of one minus 2e-5."""
    assert PATH.level(LAST).item() == pytest.approx(0.0059, abs=5e-5)
    assert 1 - PATH.signal(LAST).item() == pytest.approx(1.7e-5, abs=5e-7)
