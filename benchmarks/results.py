"""Print one table of what the three executed notebooks of a folder achieved.

Usage: PYTHONPATH=tests python benchmarks/results.py FOLDER
"""

import sys

from notebooks import NAMES, results


def table(folder):
    """Return the lines of the table: PSNR of the noisy input and of each network."""
    found = {name: results(name, folder) for name in NAMES}
    headings = {heading for heading, _ in found.values()}
    lines = [*sorted(headings), "", f"{'':36}{'noisy':>8}" + "".join(f"{n:>8}" for n in NAMES)]
    for row in found["Model1"][1]:
        values = [found["Model1"][1][row][0], *(found[name][1][row][1] for name in NAMES)]
        lines.append(f"{row:36}" + "".join(f"{value:>8}" for value in values))
    return lines


if __name__ == "__main__":
    folder = sys.argv[1]
    print(*table(folder), sep="\n")
    prefix = "" if folder == "." else f"{folder}/"
    print(f"\nPictures: {', '.join(f'{prefix}{name}.png' for name in NAMES)}")
    if folder == "build":
        print("This was a quick run: a sign that all works, not what the networks can do.\n"
              "For real, on CIFAR-10, at 3 to 4 minutes per epoch and model on two cores: "
              "make run EPOCHS=3.")
