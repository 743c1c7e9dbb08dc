"""Linear upscaling by one bank of filters, fitted by least squares."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad, pixel_shuffle, pixel_unshuffle, unfold

from srbook.arguments import require_counts, require_iterable
from srbook.images import require_maps


class LinearUpscaler(nn.Module):
    """Each high-resolution pixel is a weighted mean of the `size` x `size` low-resolution pixels around it.

    Implements :eq:`eq-linear`. The s^2 pixels under one low-resolution pixel have a filter each, the same for the three
    channels. The weights of a filter add up to one, so that brightness is kept: the parameters are offsets from "repeat
    the pixel", and their mean does not matter. A `size` that is not odd and positive is a ValueError.
    """

    def __init__(self, scale: int, size: int = 5):
        super().__init__()
        require_counts(scale=scale, size=size)
        if size % 2 == 0:
            raise ValueError(f"size must be odd and positive, so that a pixel is in the middle, got {size}")
        self.scale, self.size = scale, size
        self.offset = nn.Parameter(torch.zeros(scale**2, size**2))

    def filters(self) -> Tensor:
        """The filter bank: (scale^2, size^2), every row adds up to one."""
        center = torch.eye(self.size**2)[self.size**2 // 2].to(self.offset)
        return self.offset - self.offset.mean(dim=1, keepdim=True) + center

    def forward(self, lr: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] to (N, 3, sH, sW), not clipped. Edge pixels are repeated beyond the border."""
        require_maps(lr, 3, "lr")
        planes = pad(lr.flatten(0, 1).unsqueeze(1), (self.size // 2,) * 4, mode="replicate")
        filters = self.filters().view(-1, 1, self.size, self.size)
        return pixel_shuffle(conv2d(planes, filters), self.scale).unflatten(0, (len(lr), -1)).squeeze(2)


@torch.no_grad()
def least_squares_upscaler(batches: Iterable[tuple[Tensor, Tensor]], scale: int, size: int = 5) -> LinearUpscaler:
    """The `LinearUpscaler` with the smallest squared error over all batches, from the normal equations.

    Implements :eq:`eq-normal`. Pixels whose neighborhood leaves the patch are not used.

    Args:
        batches: pairs (hr, lr) of shapes (N, 3, sH, sW) and (N, 3, H, W).
        scale, size: as in `LinearUpscaler`.

    Raises:
        ValueError: no batch, or patches smaller than the neighborhood.
    """
    upscaler, margin = LinearUpscaler(scale, size), size // 2
    center = size**2 // 2
    gram = torch.zeros(size**2, size**2).double()
    product = torch.zeros(size**2, scale**2).double()
    count = 0
    require_iterable("batches", batches, "pairs (hr, lr)")
    for pair in batches:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise ValueError("batches must be pairs (hr, lr)")
        hr, lr = (require_maps(image, 3, name) for image, name in zip(pair, ("hr", "lr"), strict=True))
        if hr.shape != (len(lr), 3, scale * lr.shape[-2], scale * lr.shape[-1]):
            raise ValueError(f"hr must be {scale} times the size of lr, got {tuple(hr.shape)} and {tuple(lr.shape)}")
        if min(lr.shape[-2:]) < size:
            raise ValueError(f"patches of {tuple(lr.shape[-2:])} hold no neighborhood of {size} x {size}")
        brightness = lr.mean(dim=(2, 3), keepdim=True)  # cancels in every difference; without it float32 is enough
        near = unfold((lr - brightness).flatten(0, 1).unsqueeze(1), size).transpose(1, 2).flatten(0, 1)
        inner = pixel_unshuffle((hr - brightness).flatten(0, 1).unsqueeze(1), scale)[..., margin:, margin:]
        inner = inner[..., : lr.shape[-2] - 2 * margin, : lr.shape[-1] - 2 * margin].flatten(2)
        target = inner.transpose(1, 2).flatten(0, 1)
        gram += (near.T @ near).to(gram)
        product += (near.T @ target).to(product)
        count += len(near)
    if count == 0:
        raise ValueError("least squares needs at least one batch, got none")
    # F = near @ remove_mean, T = target - near[:, center]; the sums above are enough for both products.
    remove_mean = torch.eye(size**2).double() - 1 / size**2
    product = remove_mean @ (product - gram[:, center, None])
    gram = remove_mean @ gram @ remove_mean
    # The mean is gone from every row, so one direction has no energy: the pseudoinverse leaves it at zero.
    weights = torch.linalg.pinv(gram, rtol=1e-7, hermitian=True) @ product
    upscaler.offset.copy_(weights.T)
    return upscaler
