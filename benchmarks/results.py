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
    headings, rows = zip(*(results(name, folder) for name in NAMES))
    line = "{:36}{:>8}{:>8}{:>8}{:>8}".format
    return [*sorted(set(headings)), "", line("", "noisy", *NAMES),
            *(line(row, noisy, *(each[row][1] for each in rows))
              for row, (noisy, _) in rows[0].items())]


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
