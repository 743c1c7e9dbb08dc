"""What the book proves about entropy: codes, bins, scale, the Gaussian bound, subtraction, and small samples."""

import heapq
import math
from collections import defaultdict
from itertools import product

import numpy as np
import pytest
import torch

from srbook.data import read_image
from srbook.metrics import PROTOCOL_A, image_entropy, residual_entropy, shannon_entropy
from srbook.results import stored_result


def bits(shares) -> float:
    shares = np.asarray(shares, dtype=float).ravel()
    shares = shares[shares > 0]
    return float(-(shares * np.log2(shares)).sum())


def random_shares(*shape: int, seed: int, power: float = 1.0) -> np.ndarray:
    """Shares that sum to one; a high power makes them very unequal."""
    weights = np.random.default_rng(seed).random(shape) ** power
    return weights / weights.sum()


def huffman_lengths(shares: np.ndarray) -> np.ndarray:
    """Length of each level's word in the best code."""
    lengths = np.zeros(len(shares), dtype=int)
    heap = [(share, level, [level]) for level, share in enumerate(shares)]
    heapq.heapify(heap)
    while len(heap) > 1:
        (first, _, some), (second, tie, others) = heapq.heappop(heap), heapq.heappop(heap)
        lengths[some + others] += 1
        heapq.heappush(heap, (first + second, tie, some + others))
    return lengths


@pytest.mark.parametrize("power", [0.0, 1.0, 8.0, 60.0])
@pytest.mark.parametrize("levels", [2, 5, 64, 256])
def test_codes_take_the_entropy_and_less_than_a_bit_more(levels: int, power: float):
    shares = random_shares(levels, seed=levels, power=power)
    best, simple = huffman_lengths(shares), np.ceil(-np.log2(shares))
    for lengths in (best, simple):
        assert (2.0**-lengths).sum() <= 1 + 1e-12  # Kraft
        assert bits(shares) - 1e-9 <= shares @ lengths < bits(shares) + 1
    assert shares @ best <= shares @ simple + 1e-12


def test_a_code_reaches_the_entropy_of_powers_of_one_half():
    shares = np.array([1 / 2, 1 / 4, 1 / 8, 1 / 8])
    assert [shares @ huffman_lengths(shares), bits(shares)] == pytest.approx([1.75, 1.75])


@pytest.mark.parametrize("merged", [1, 2, 3, 8, 64])
@pytest.mark.parametrize("power", [0.0, 1.0, 20.0])
def test_merging_bins_loses_between_nothing_and_their_logarithm(merged: int, power: float):
    levels = 24 * merged
    shares = random_shares(levels, seed=merged, power=power)
    coarse = (
        np.random.default_rng(1).permutation(shares).reshape(-1, merged).sum(axis=1)
    )  # any bins, not only neighbors
    assert bits(shares) - math.log2(merged) - 1e-9 <= bits(coarse) <= bits(shares) + 1e-9
    if power == 0:  # equal shares lose all of it
        assert bits(coarse) == pytest.approx(bits(shares) - math.log2(merged))


def test_wider_bins_of_the_package_merge():
    values = torch.randint(0, 256, (1, 5000), generator=torch.Generator().manual_seed(0)).square() // 256
    fine, coarse = (shannon_entropy(values + 0.5, bins=bins, low=0, high=256).item() for bins in (256, 32))
    assert fine - 3 <= coarse <= fine


def normal_cdf(x: np.ndarray) -> np.ndarray:
    return torch.special.ndtr(torch.from_numpy(x)).numpy()


def laplace_cdf(x: np.ndarray) -> np.ndarray:
    return np.where(x < 0, 0.5 * np.exp(-np.abs(x)), 1 - 0.5 * np.exp(-np.abs(x)))


def triangle_cdf(x: np.ndarray) -> np.ndarray:
    x = np.clip(x, -1, 1)
    return np.where(x < 0, (1 + x) ** 2 / 2, 1 - (1 - x) ** 2 / 2)


DENSITIES = {
    "normal": (normal_cdf, 0.5 * math.log2(2 * math.pi * math.e)),
    "laplace": (laplace_cdf, math.log2(2 * math.e)),
    "triangle": (triangle_cdf, 0.5 / math.log(2)),
}


@pytest.mark.parametrize("name", DENSITIES)
@pytest.mark.parametrize("factor", [0.5, 1.0, 7.3])
def test_finer_bins_and_larger_scales_add_their_logarithm(name: str, factor: float):
    """The shares of the bins are differences of distribution functions, so nothing is sampled."""
    cdf, differential = DENSITIES[name]
    errors = []
    for width in (0.4, 0.1, 0.01):
        edges = width * (np.arange(-round(40 * factor / width), round(40 * factor / width) + 1) + 0.3)
        shares = np.diff(cdf(edges / factor))
        errors.append(abs(bits(shares) - differential - math.log2(factor / width)))
    assert errors[2] < 1e-3 and errors[2] < errors[0]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("power", [0.0, 1.0, 10.0, 100.0])
def test_no_whole_number_exceeds_the_gaussian_bound(seed: int, power: float):
    for levels in (1, 2, 3, 20, 300):
        shares = random_shares(levels, seed=seed, power=power)
        numbers = np.sort(np.random.default_rng(seed).choice(511, levels, replace=False))  # with gaps
        variance = shares @ (numbers - shares @ numbers) ** 2
        assert bits(shares) <= 0.5 * math.log2(2 * math.pi * math.e * (variance + 1 / 12)) + 1e-9


@pytest.mark.parametrize("std", [1.0, 5.0, 50.0])
def test_a_rounded_gaussian_nearly_reaches_the_bound(std: float):
    """Of a Laplacian with the same variance, 0.104 bits are missing: log2(sqrt(pi / e))."""
    edges = np.arange(-2000, 2001) - 0.5
    numbers = np.arange(-2000, 2000)
    for cdf, width, gap in (
        (normal_cdf, std, 0.0),
        (laplace_cdf, std / math.sqrt(2), math.log2(math.sqrt(math.pi / math.e))),
    ):
        shares = np.diff(cdf(edges / width))
        variance = shares @ numbers**2 - (shares @ numbers) ** 2
        missing = 0.5 * math.log2(2 * math.pi * math.e * (variance + 1 / 12)) - bits(shares)
        assert missing >= -1e-12
        assert missing == pytest.approx(gap, abs=0.08 if std == 1 else 0.01)


def entropy_of(pairs) -> float:
    """Entropy of the values in (value, share) pairs."""
    total: dict[int, float] = defaultdict(float)
    for value, share in pairs:
        total[value] += share
    return bits(list(total.values()))


@pytest.mark.parametrize("seed", range(4))
def test_subtraction_stays_above_the_conditional_entropy(seed: int):
    """All predictors with values -2 to 4, for random tables of X in 0..3 and y in 0..2."""
    joint = random_shares(4, 3, seed=seed, power=4)
    conditional = bits(joint) - bits(joint.sum(axis=0))
    of_x = bits(joint.sum(axis=1))
    for f in product(range(-2, 5), repeat=3):
        residual = entropy_of((x - f[y], joint[x, y]) for x in range(4) for y in range(3))
        of_f = entropy_of((f[y], joint[:, y].sum()) for y in range(3))
        assert conditional - 1e-9 <= residual <= of_x + of_f + 1e-9


def test_independent_residuals_reach_the_conditional_entropy_and_a_bad_predictor_adds():
    noise = np.array([0.5, 0.3, 0.2])
    of_y = np.array([0.25, 0.75])
    offset = (0, 5)
    joint = [(offset[y] + r, y, of_y[y] * noise[r]) for y in range(2) for r in range(3)]
    good = entropy_of((x - offset[y], share) for x, y, share in joint)
    assert good == pytest.approx(bits(noise))  # H(X | y)
    bad = entropy_of((x - (7, 0)[y], share) for x, y, share in joint)
    assert bad > good
    assert entropy_of([(3 - 0, 0.5), (3 - 1, 0.5)]) == pytest.approx(1)  # a constant X, of 0 bits, minus a fair coin


@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_samples_show_too_little_on_average(count: int):
    shares = np.array([0.6, 0.3, 0.1])
    average = 0.0
    for sample in product(range(3), repeat=count):
        found = bits(np.bincount(sample, minlength=3) / count)
        assert found <= math.log2(count) + 1e-12
        average += shares[list(sample)].prod() * found
    assert average <= bits(shares)
    if count == 1:
        assert average == 0


def test_the_missing_bits_of_a_large_sample():
    """About (K - 1) / (2 M ln 2) for K bins and M values (Miller and Madow)."""
    shares = torch.from_numpy(random_shares(50, seed=3))
    samples = torch.multinomial(shares, 2000 * 1000, replacement=True, generator=torch.Generator().manual_seed(0))
    found = shannon_entropy(samples.view(2000, 1000), bins=50, low=0, high=50).mean().item()
    assert bits(shares) - found == pytest.approx(49 / (2 * 1000 * math.log(2)), rel=0.1)


def test_stored_reductions_of_set14():
    rows = stored_result("entropy")["sets"]["Set14"]["whole"]
    cuts = [100 * (1 - row["bicubic"]["y"] / row["image"]["y"]) for row in rows.values()]
    assert len(rows) == 14
    assert np.mean(cuts) == pytest.approx(22.2, abs=0.05) and np.std(cuts, ddof=1) == pytest.approx(11.7, abs=0.05)
    for row in rows.values():  # two ways of counting the same
        assert row["bicubic_widths"][0] == pytest.approx(row["bicubic"]["y"], abs=1e-9)
        assert row["image_widths"][0] == pytest.approx(row["image"]["y"], abs=1e-9)


def test_stored_entropies_of_one_image(shared):
    from srbook.degradations import bicubic_upsample

    row = stored_result("entropy")["sets"]["Set5"]["whole"]["woman"]
    hr = PROTOCOL_A.target(read_image(shared / "data" / "test" / "Set5" / "woman.png").unsqueeze(0), 4)
    upscaled = bicubic_upsample(PROTOCOL_A.degrade(hr, 4), 4).clamp(0, 1)
    for channel in ("y", "rgb", "pooled"):
        assert row["image"][channel] == pytest.approx(image_entropy(hr, channel=channel).item(), abs=1e-9)
        expected = residual_entropy(hr, upscaled, channel=channel).item()
        assert row["bicubic"][channel] == pytest.approx(expected, abs=1e-3)  # rounding at .5 may differ by machine
