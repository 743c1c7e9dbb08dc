"""How far apart two images are in an embedding: the Jensen-Shannon divergence of HF-Diff."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from srbook.arguments import require_function, require_numbers
from srbook.images import require_same_shape
from srbook.numbers import at_least_single

Embedding = Callable[[Tensor], Tensor]


def jensen_shannon(p_logits: Tensor, q_logits: Tensor) -> Tensor:
    """The divergence of two distributions in nats, from logits (N, D): (N,), in [0, ln 2], float32 or wider.

    Half the divergence of each from their mean: JS = KL(P | M) / 2 + KL(Q | M) / 2 with M = (P + Q) / 2 (Lin 1991).

    Implements :eq:`eq-hfdiff-js`.
    """
    require_same_shape(p_logits, q_logits, ("p_logits", "q_logits"))
    if p_logits.ndim != 2 or not p_logits.numel():
        raise ValueError(f"distributions must be (N, D), got {tuple(p_logits.shape)}")
    log_p, log_q = (log_softmax(at_least_single(logits), dim=-1) for logits in (p_logits, q_logits))
    log_mean = torch.logaddexp(log_p, log_q) - torch.log(torch.tensor(2.0, dtype=log_p.dtype, device=log_p.device))
    apart = []
    for log in (log_p, log_q):
        possible = log > -torch.inf  # 0 log 0 is 0
        ratio = torch.where(possible, log, 0.0) - torch.where(possible, log_mean, 0.0)
        apart.append((log.exp() * ratio).sum(dim=-1))
    return (0.5 * (apart[0] + apart[1])).clamp(min=0)


def jensen_shannon_loss(sr: Tensor, hr: Tensor, embed: Embedding, temperature: float = 1.0) -> Tensor:
    """The mean divergence of the softmax of two images' embeddings. Gradients flow to `sr` only.

    HF-Diff (Sami et al. 2024) takes an embedding of DINOv2, and does not say how it becomes a distribution. Here it is
    the softmax over the components of an embedding, divided by the temperature.

    Implements :eq:`eq-hfdiff-divergence`.

    Args:
        sr: (N, 3, H, W), judged.
        hr: the truth, shaped like `sr`.
        embed: (N, 3, H, W) to (N, D).
        temperature: positive.
    """
    require_same_shape(sr, hr, ("sr", "hr"))
    require_function("embed", embed)
    require_numbers(temperature=temperature)
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be positive, got {temperature}")
    with torch.no_grad():
        wanted = embed(hr)
    return jensen_shannon(embed(sr) / temperature, wanted / temperature).mean()
