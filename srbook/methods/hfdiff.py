"""HF-Diff: a one-step student that is also judged by features, and by an embedding, of its image."""

import math
from functools import cache
from typing import Any, Literal

from torch import Tensor

from srbook.codecs import read_codec
from srbook.codecs.extractor import Extractor
from srbook.frozen import Frozen
from srbook.images import clip
from srbook.losses.embeddings import embedding
from srbook.losses.features import alexnet_features, feature_distance, vgg19_features
from srbook.losses.jensen_shannon import Embedding, jensen_shannon_loss
from srbook.methods.sinsr import SinSR
from srbook.metrics import lpips

FEATURES = {"alex": alexnet_features, "vgg": vgg19_features}


class HFDiff(SinSR):
    """SinSR with two more terms (Sami et al. 2024), each of the image that the student's step makes of noise.

    The first is the squared distance from the truth in the features of an invertible network
    (`srbook.codecs.Extractor`), which loses nothing of its input, so not the high frequencies either. The second is the
    Jensen-Shannon divergence of the softmax of two embeddings (`srbook.losses.jensen_shannon_loss`). The terms that the
    paper compares them with, features of a classifier and LPIPS, are there, too.

    The text gives no weights and does not say how an embedding becomes a distribution: the weights of 1 are ours. What
    is public of its program (github.com/shoaib-sami/Multi-Granular-High-Frequency-Perceptual-Loss-MGHF-, commit
    0f503ae) does something else: see `high_frequency_of` and `high_frequency_in`, and the preset "hfdiff-released".

    Implements :eq:`eq-hfdiff-features` and :eq:`eq-hfdiff-loss`.

    Args:
        extractor: file or name of a trained `Extractor`; it is needed in training only.
        high_frequency: weight of the distance between the extractor's features.
        high_frequency_of: which step is compared with the truth: the "jump" from noise around the anchor, as in the
            paper's equation 6, or the step from what the way back makes of the "truth", as in the program.
        high_frequency_in: where the features are taken: of the decoded "image" in [-1, 1], or of the "latent", which
            must then have three channels, as in the program.
        divergence: weight of the divergence between embeddings.
        encoder: makes the embedding: "extractor", that of the extractor itself, or see `srbook.losses.embedding`. The
            paper has "dinov2".
        temperature: divides the embedding before its softmax.
        features: weight of the mean magnitude of the difference in the features of a classifier.
        features_net: "vgg", `srbook.losses.vgg19_features`, or "alex", `srbook.losses.alexnet_features`.
        lpips: weight of LPIPS.
        lpips_net: whose features LPIPS compares.
        scale, student, teacher, teacher_steps, distill, inverse, truth, inverse_time, inverse_scale: as in `SinSR`.
    """

    kind = "hfdiff"
    only_in_training = ("teacher", "extractor")

    def __init__(
        self,
        *,
        scale: int,
        student: dict[str, Any],
        teacher: str | None = None,
        teacher_steps: int | None = None,
        distill: float = 1.0,
        inverse: float = 1.0,
        truth: float = 1.0,
        inverse_time: Literal["first", "zero"] = "first",
        inverse_scale: Literal["end", "own"] = "end",
        extractor: str | None = None,
        high_frequency: float = 1.0,
        high_frequency_of: Literal["jump", "truth"] = "jump",
        high_frequency_in: Literal["image", "latent"] = "image",
        divergence: float = 1.0,
        encoder: Literal["extractor", "dinov2", "alexnet", "vgg19"] = "dinov2",
        temperature: float = 1.0,
        features: float = 0.0,
        features_net: Literal["vgg", "alex"] = "vgg",
        lpips: float = 0.0,
        lpips_net: Literal["alex", "vgg", "squeeze"] = "alex",
    ):
        super().__init__(
            scale=scale,
            student=student,
            teacher=teacher,
            teacher_steps=teacher_steps,
            distill=distill,
            inverse=inverse,
            truth=truth,
            inverse_time=inverse_time,
            inverse_scale=inverse_scale,
        )
        weights = {"high_frequency": high_frequency, "divergence": divergence, "features": features, "lpips": lpips}
        for name, weight in weights.items():
            if weight < 0:
                raise ValueError(f"{name} must be a weight of at least 0, got {weight}")
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature must be positive, got {temperature}")
        if high_frequency and high_frequency_of == "truth" and not truth:
            raise ValueError("the features of the step from the truth need the term of the truth; give it a weight")
        if high_frequency and high_frequency_in == "latent" and self.space.channels != 3:
            raise ValueError(f"the extractor sees three channels, and the student's x has {self.space.channels}")
        self.extractor = frozen_extractor(extractor)

    def further_terms(self, hr: Tensor, x0: Tensor, jumped: Tensor, returned: Tensor | None) -> dict[str, Tensor]:
        """Those of "high_frequency", "divergence", "features", and "lpips" that have a weight."""
        decode, terms = cache(self.space.decode), {}
        if self.high_frequency:
            step = jumped if self.high_frequency_of == "jump" else returned
            in_latent = self.high_frequency_in == "latent"
            found, wanted = (step, x0) if in_latent else (2 * decode(step) - 1, 2 * hr - 1)
            terms["high_frequency"] = feature_distance(found, wanted, self._known.network.features, "l2")
        if self.divergence:
            terms["divergence"] = jensen_shannon_loss(clip(decode(jumped)), hr, self.embed, self.temperature)
        if self.features:
            terms["features"] = feature_distance(clip(decode(jumped)), hr, FEATURES[self.features_net])
        if self.lpips:
            terms["lpips"] = lpips(clip(decode(jumped)), hr, net=self.lpips_net).mean()
        return terms

    @property
    def embed(self) -> Embedding:
        """From images to the embedding that the divergence compares."""
        return self._known.embed if self.encoder == "extractor" else embedding(self.encoder)

    @property
    def _known(self) -> Extractor:
        if self.extractor is None:
            name = self.arguments["extractor"]
            raise FileNotFoundError(f"training needs the extractor, and {name!r} is not on this machine or has changed")
        return self.extractor.module


def frozen_extractor(file_or_name: str | None) -> Frozen | None:
    """The extractor, or None where it is not on this machine; a file of something else is a ValueError."""
    if file_or_name is None:
        return None
    try:
        extractor = read_codec(file_or_name)
    except FileNotFoundError:
        return None
    if not isinstance(extractor, Extractor):
        raise ValueError(f"{file_or_name!r} holds no extractor but a {extractor.kind}")
    return Frozen(extractor)
