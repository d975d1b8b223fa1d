"""Write the address of the bundle into its notebooks and its README, for Colab.

Usage: PYTHONPATH=tests python benchmarks/publish.py URL BRANCH   (make publish URL=…)
URL is https://github.com/OWNER/REPOSITORY. Each notebook gets a badge that opens it in Colab, and
in its first code cell the place to fetch common.py from. An earlier address is replaced.
"""

import re
import sys
from pathlib import Path

import nbformat

from notebooks import NAMES

BADGE = re.compile(r"\[!\[Open [^]]* in Colab\]\([^)]*\)\]\([^)]*\)\n*")


def badge(name, repository, branch):
    return (f"[![Open {name} in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
            f"(https://colab.research.google.com/github/{repository}/blob/{branch}/{name}.ipynb)\n")


def publish(url, branch):
    """Write the address of the repository into the notebooks and the README of this folder."""
    found = re.fullmatch(r"https://github\.com/([\w.-]+/[\w.-]+?)(\.git)?/?", url)
    if not found or not re.fullmatch(r"[\w.-][\w./-]*", branch):
        sys.exit(f"URL is {url!r}, BRANCH is {branch!r}; URL must be of the form "
                 "https://github.com/OWNER/REPOSITORY, and BRANCH the name of a branch.")
    repository = found[1]
    files = f"https://raw.githubusercontent.com/{repository}/{branch}"
    for name in NAMES:
        notebook = nbformat.read(f"{name}.ipynb", as_version=4)
        title = notebook.cells[0]
        title.source = badge(name, repository, branch) + "\n" + BADGE.sub("", title.source)
        setup = next(cell for cell in notebook.cells if cell.cell_type == "code")
        setup.source = re.sub(r'(?<=^FILES_URL = )".*?"', f'"{files}"', setup.source, flags=re.M)
        nbformat.write(notebook, f"{name}.ipynb")
    readme = Path("README.md")
    heading, text = BADGE.sub("", readme.read_text(encoding="utf-8")).split("\n", 1)
    badges = "".join(badge(name, repository, branch) for name in NAMES)
    readme.write_text(f"{heading}\n\n{badges}\n{text.lstrip()}", encoding="utf-8")
    print(f"The notebooks and README.md now name {files}. Commit and push them.")


if __name__ == "__main__":
    publish(sys.argv[1], sys.argv[2])
