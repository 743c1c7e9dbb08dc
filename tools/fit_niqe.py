"""Fit the model of good photographs that NIQE compares with, and put it into the package.

python -m tools.fit_niqe --photos BSDS500_train --what "BSDS500's training photographs, 199 JPEG files of 481x321"
"""

import argparse
from pathlib import Path

from srbook.data import image_files, read_image
from srbook.metrics.niqe import FIT, fit_pristine, save_pristine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="folder of good photographs")
    parser.add_argument("--what", required=True, help="what they are, in words")
    arguments = parser.parse_args()
    model = fit_pristine(read_image(path)[None] for path in image_files(arguments.photos))
    print(f"wrote {save_pristine(FIT, model, arguments.what)}")


if __name__ == "__main__":
    main()
