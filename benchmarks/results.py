"""Print one table of what the three executed notebooks of a folder achieved.

Usage: PYTHONPATH=.:tests python benchmarks/results.py FOLDER   (make results: of this one)
For the committed ones, it also draws faces.png, the README's figure.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import common
from notebooks import NAMES, results

FACE = np.s_[60:160, 175:275]


def table(folder):
    """Return the lines of the table: PSNR of the noisy input and of each network."""
    found = {name: results(name, folder) for name in NAMES}
    headings = {heading for heading, _ in found.values()}
    lines = [*sorted(headings), "", f"{'':36}{'noisy':>8}" + "".join(f"{n:>8}" for n in NAMES)]
    for row in found["Model1"][1]:
        values = [found["Model1"][1][row][0], *(found[name][1][row][1] for name in NAMES)]
        lines.append(f"{row:36}" + "".join(f"{value:>8}" for value in values))
    return lines


def draw_faces():
    """Write the README's figure: a face before and after each network, enlarged."""
    found = {"noisy.png": common.noisy_picture(), **{
        f"{name}.png": common.open_picture(f"{name}.png")[0] for name in NAMES},
        "clean": common.clean_picture()}
    common.plot_pictures({name: picture[FACE] for name, picture in found.items()}, "")
    plt.savefig(Path(__file__).with_name("faces.png"), dpi=100, bbox_inches="tight")


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    print(*table(folder), sep="\n")
    print(f"\nPictures: {', '.join(str(folder / f'{name}.png') for name in NAMES)}")
    if folder == Path("."):
        draw_faces()
    if folder == Path("build"):
        print("This was a quick run: a sign that all works, not what the networks can do.\n"
              "For real, on CIFAR-10, at 3 to 5 minutes per epoch and model on two cores: "
              "make run EPOCHS=3.")
