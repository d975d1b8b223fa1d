"""Write the address of the bundle into its notebooks and its README, for Colab.

Usage: PYTHONPATH=tests python teaching/publish.py URL BRANCH   (make publish URL=…)
URL is https://github.com/OWNER/REPOSITORY: each notebook gets a badge that opens it in Colab, and
in its first code cell the address of the branch's archive. Or it is the address of a bundle.zip on
any server, which is written as it is, without a badge. An earlier address is replaced.
"""

import re
import sys
from pathlib import Path

import nbformat

from notebooks import NAMES

LINK = ("[![Open {name} in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
        "(https://colab.research.google.com/github/{place}/{name}.ipynb)\n")
BADGE = re.compile(r"\[!\[Open [^]]* in Colab\]\([^)]*\)\]\([^)]*\)\n*")


def publish(url, branch, folder=Path()):
    """Write the address of the bundle into the notebooks and the README of `folder`."""
    found = re.fullmatch(r"https://github\.com/([\w.-]+/[\w.-]+?)(\.git)?/?", url)
    if found and re.fullmatch(r"[\w.-][\w./-]*", branch):
        place = f"{found[1]}/blob/{branch}"
        archive = f"https://github.com/{found[1]}/archive/refs/heads/{branch}.zip"
    elif re.fullmatch(r"https?://[^\s\"\\]+\.zip", url):
        place, archive = "", url
    else:
        sys.exit(f"URL is {url!r}, BRANCH is {branch!r}; URL must be of the form "
                 "https://github.com/OWNER/REPOSITORY, and BRANCH the name of a branch; or URL the "
                 "address of a zip file.")
    write(archive, place, folder)
    print(f"The notebooks now fetch {archive}: push all of it, or put the zip file there.")


def write(archive, place, folder):
    """Write the address of the `archive`, and badges for the `place` on GitHub; "" is none."""
    badges = [LINK.format(name=name, place=place) if place else "" for name in NAMES]
    for name, badge in zip(NAMES, badges):
        notebook = nbformat.read(folder / f"{name}.ipynb", as_version=4)
        title = notebook.cells[0]
        title.source = (badge + "\n" + BADGE.sub("", title.source)).lstrip()
        setup = next(cell for cell in notebook.cells if cell.cell_type == "code")
        setup.source = re.sub('(?m)^ARCHIVE = ".*?"', f'ARCHIVE = "{archive}"', setup.source)
        nbformat.write(notebook, folder / f"{name}.ipynb")
    readme = folder / "README.md"
    heading, text = BADGE.sub("", readme.read_text(encoding="utf-8")).split("\n", 1)
    badges = "".join(badges) + "\n" * any(badges)
    readme.write_text(f"{heading}\n\n{badges}{text.lstrip()}", encoding="utf-8")


if __name__ == "__main__":
    publish(*sys.argv[1:])
