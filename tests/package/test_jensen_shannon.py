"""The Jensen-Shannon divergence: SciPy's numbers, its bounds, and its gradient."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from srbook.losses import jensen_shannon, jensen_shannon_loss


def logits(*shape: int, seed: int = 0, spread: float = 1.0) -> torch.Tensor:
    return spread * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.arithmetic
def test_scipys_values(vectors: Path):
    with np.load(vectors / "js_softmax.npz") as file:
        hr, sr = (torch.from_numpy(file[f"emb_{name}"]) for name in ("hr", "sr"))
        assert_allclose(jensen_shannon(sr, hr), file["js_nats"], rtol=1e-9)
        assert_allclose(jensen_shannon(sr, hr) / math.log(2), file["js_bits"], rtol=1e-9)


def test_it_lies_between_0_and_ln_2_and_is_symmetric():
    for spread in (0.1, 1.0, 30.0, 1e4):
        p, q = logits(50, 8, spread=spread), logits(50, 8, seed=1, spread=spread)
        found = jensen_shannon(p, q)
        assert found.min() >= -1e-12 and found.max() <= math.log(2) + 1e-12
        assert_allclose(found, jensen_shannon(q, p), atol=1e-12)
    assert_allclose(jensen_shannon(p, p), 0, atol=1e-12)
    apart = 1e3 * torch.eye(2, dtype=torch.float64)
    assert_allclose(jensen_shannon(apart[:1], apart[1:]), math.log(2))


def test_masked_logits_and_equal_ones():
    p = torch.tensor([[0.0, -torch.inf]], dtype=torch.float64, requires_grad=True)
    found = jensen_shannon(p, torch.zeros(1, 2, dtype=torch.float64))
    assert_allclose(found.detach(), 0.5 * (math.log(4 / 3) + 0.5 * math.log(2 / 3) + 0.5 * math.log(2)))
    found.sum().backward()
    assert torch.isfinite(p.grad).all()
    near = logits(100, 8).float()
    assert torch.isfinite(jensen_shannon(near, near + 1e-4 * logits(100, 8, seed=1).float()).sqrt()).all()


def test_its_root_obeys_the_triangle_inequality():
    p, q, r = (logits(200, 5, seed=seed, spread=3.0) for seed in (0, 1, 2))
    sides = [jensen_shannon(*pair).sqrt() for pair in ((p, r), (p, q), (q, r))]
    assert (sides[0] <= sides[1] + sides[2] + 1e-12).all()


def test_its_gradient():
    p, q = logits(2, 6).requires_grad_(), logits(2, 6, seed=1)
    assert torch.autograd.gradcheck(lambda p: jensen_shannon(p, q), p)


def test_the_loss_compares_embeddings_and_moves_one():
    sr, hr = torch.rand(3, 3, 4, 4, requires_grad=True), torch.rand(3, 3, 4, 4, requires_grad=True)

    def embed(image: torch.Tensor) -> torch.Tensor:
        return image.flatten(1)

    loss = jensen_shannon_loss(sr, hr, embed, temperature=0.5)
    torch.testing.assert_close(loss, jensen_shannon(2 * embed(sr), 2 * embed(hr)).mean())
    loss.backward()
    assert sr.grad.abs().sum() > 0 and hr.grad is None
    with pytest.raises(ValueError, match="temperature must be positive, got 0"):
        jensen_shannon_loss(sr, hr, embed, temperature=0.0)
    with pytest.raises(ValueError, match="must have the same shape"):
        jensen_shannon_loss(sr, hr[..., 1:], embed)
