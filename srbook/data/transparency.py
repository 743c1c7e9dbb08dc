"""The colors under transparent pixels."""

import numpy as np
import torch
from torch import Tensor

# An alpha that 8 bits show as 0.
_INVISIBLE = 0.5 / 255


def fill_transparent(rgb: Tensor, alpha: Tensor) -> Tensor:
    """Give every fully transparent pixel the color of the nearest visible one, so that no hidden color is enlarged.

    Files hold an arbitrary color, mostly black, where nothing shows. Enlarged apart from alpha, it would bleed into
    the edges. A partly transparent pixel keeps its color: laid on a background it is seen there, at the share of its
    alpha, and it is the color with which its transparent neighbors continue the edge. Where nothing is visible, nothing
    changes.

    Args:
        rgb: (1, 3, H, W) in [0, 1].
        alpha: (1, 1, H, W) in [0, 1], not premultiplied into `rgb`.

    Returns:
        (1, 3, H, W).
    """
    from scipy.ndimage import distance_transform_edt  # here: scipy takes a moment to import, and few pictures need it

    hidden = (alpha[0, 0] < _INVISIBLE).cpu().numpy()
    if hidden.all() or not hidden.any():
        return rgb
    rows, columns = distance_transform_edt(hidden, return_distances=False, return_indices=True)
    nearest = torch.from_numpy(rows[hidden].astype(np.int64) * hidden.shape[1] + columns[hidden]).to(rgb.device)
    filled = rgb.clone()
    filled[0][:, torch.from_numpy(hidden).to(rgb.device)] = rgb[0].flatten(1)[:, nearest]
    return filled
