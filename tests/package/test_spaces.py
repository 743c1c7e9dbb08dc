"""Spaces and frozen parts: what a codec's latent is to a method, and what neither trains nor is stored."""

import copy

import pytest
import torch
from rounding import identical
from torch import Tensor, nn

from srbook.frozen import Frozen
from srbook.spaces import Latent, Pixels, Unshuffled


class Blocks(nn.Module):
    """A codec whose latent is the mean of 2x2 pixels, brought near [-1, 1]; its way back repeats them."""

    channels, factor = 3, 2

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.Conv2d(3, 3, 2, stride=2, groups=3, bias=False)
        nn.init.constant_(self.pool.weight, 0.25)
        self.norm = nn.BatchNorm2d(3)

    def encode(self, image: Tensor) -> Tensor:
        return 2 * self.pool(image) - 1

    def decode(self, x: Tensor) -> Tensor:
        return (x + 1).repeat_interleave(2, 2).repeat_interleave(2, 3) / 2


def test_pixels_are_the_image_and_clipped_on_the_way_back():
    image = torch.rand(2, 3, 4, 6)
    assert identical(Pixels().encode(image), image)
    assert identical(Pixels().decode(3 * image - 1), (3 * image - 1).clamp(0, 1))


def test_a_latent_has_the_codecs_sides_channels_and_range():
    space, image = Latent(Blocks()), torch.rand(1, 3, 4, 6)
    x = space.encode(image)
    assert (space.channels, space.factor, x.shape) == (3, 2, (1, 3, 2, 3))
    torch.testing.assert_close(space.decode(x)[..., ::2, ::2], nn.functional.avg_pool2d(image, 2))
    assert space.decode(x + 5).max() == 1  # outside of the range of images


class Owner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.own = nn.Linear(2, 2)
        self.codec = Frozen(Blocks())


def test_a_frozen_part_follows_and_is_neither_trained_nor_stored():
    owner = Owner()
    assert [name for name, _ in owner.named_parameters()] == ["own.weight", "own.bias"]
    assert list(owner.state_dict()) == ["own.weight", "own.bias"]
    owner.load_state_dict(dict(owner.state_dict()))
    owner.train()
    assert owner.own.training and not owner.codec.module.norm.training
    assert owner.double().codec.module.pool.weight.dtype == torch.float64
    assert owner.to("meta").codec.module.pool.weight.is_meta
    owner.requires_grad_(True)
    assert not owner.codec.module.pool.weight.requires_grad


def test_no_tied_weight_stays_behind():
    module = nn.Module()
    module.one = module.other = nn.Parameter(torch.ones(2))
    frozen = Frozen(module)
    assert list(frozen.parameters()) == [] and list(frozen.state_dict()) == [] and len(frozen.weights()) == 2


def test_gradients_pass_through_a_frozen_part():
    image = torch.rand(1, 3, 4, 4, requires_grad=True)
    Owner().codec.module.encode(image).sum().backward()
    torch.testing.assert_close(image.grad, torch.full_like(image, 0.5))


def test_the_hash_tells_frozen_parts_apart():
    one, other = Frozen(Blocks()), Frozen(Blocks())
    assert one.hash == other.hash == copy.deepcopy(one).hash and len(one.hash) == 16
    other.module.pool.weight[0] += 1e-3
    assert one.hash != other.hash
    assert Frozen(Blocks()).to("meta").hash == ""


def test_frozen_weights_are_given_and_taken():
    one, other = Frozen(Blocks()), Frozen(Blocks()).to("meta")
    one.module.norm.running_mean += 2
    other.load(one.weights())
    assert one.hash == other.hash and identical(one.weights(), other.weights())
    assert list(other.state_dict()) == []
    weights = one.weights()
    weights["pool.weight"] = weights["pool.weight"][:2]
    with pytest.raises(ValueError, match="names or shapes differ"):
        other.load(weights)


def test_unshuffled_pixels_keep_every_value():
    space, image = Unshuffled(2), torch.rand(2, 3, 4, 6)
    x = space.encode(image)
    assert (space.channels, space.factor, x.shape) == (12, 2, (2, 12, 2, 3))
    torch.testing.assert_close(x[:, 3], 2 * image[:, 0, 1::2, 1::2] - 1)  # red's last pixel of each block
    torch.testing.assert_close(space.decode(x), image)
    assert space.decode(x + 5).max() == 1
    with pytest.raises(ValueError, match=r"factor must be an integer of at least 1, got 1\.5"):
        Unshuffled(1.5)


def test_a_codec_in_half_precision_makes_a_latent_in_single():
    space = Latent(Blocks().bfloat16())
    x = space.encode(torch.rand(1, 3, 4, 4).bfloat16())
    assert x.dtype == torch.float32
    assert space.decode(x.bfloat16()).dtype == torch.float32
