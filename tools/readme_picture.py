"""Draw book/_static/readme.png: one crop of a held-out photograph, three times: `python -m tools.readme_picture`."""

from pathlib import Path

import matplotlib.pyplot as plt

import srbook
from srbook.data import sample
from srbook.degradations import bicubic_downsample, crop_to_multiple
from srbook.metrics import psnr
from srbook.viz import use_style

TOP, LEFT, HEIGHT, WIDTH = 150, 395, 110, 150


def main() -> None:
    use_style()
    truth = crop_to_multiple(sample("motorcycle_left"), 4)
    small = bicubic_downsample(truth, 4)
    images = {name: srbook.load(name).upscale(small).image for name in ("bicubic", "rrdb-small")}
    titles = {
        name: f"{name}: {psnr(image, truth, channel='y', border=4).item():.2f} dB" for name, image in images.items()
    }
    fig, axes = plt.subplots(1, 3, figsize=(10, 2.75), layout="constrained")
    shown = [*zip(titles.values(), images.values(), strict=True), ("truth", truth)]
    for ax, (title, image) in zip(axes, shown, strict=True):
        ax.imshow(image[0, :, TOP : TOP + HEIGHT, LEFT : LEFT + WIDTH].permute(1, 2, 0), interpolation="nearest")
        ax.set(title=title, xticks=[], yticks=[])
    fig.savefig(Path(__file__).parents[1] / "book" / "_static" / "readme.png", dpi=120)


if __name__ == "__main__":
    main()
