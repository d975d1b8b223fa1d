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

BADGE = re.compile(r"\[!\[Open [^]]* in Colab\]\([^)]*\)\]\([^)]*\)\n*")


def badge(name, repository, branch):
    return (f"[![Open {name} in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
            f"(https://colab.research.google.com/github/{repository}/blob/{branch}/{name}.ipynb)\n")


def read(url, branch):
    """Return the address of the archive behind `url`, and the badges of the three notebooks."""
    found = re.fullmatch(r"https://github\.com/([\w.-]+/[\w.-]+?)(\.git)?/?", url)
    if found and re.fullmatch(r"[\w.-][\w./-]*", branch):
        return (f"https://github.com/{found[1]}/archive/refs/heads/{branch}.zip",
                [badge(name, found[1], branch) for name in NAMES])
    if re.fullmatch(r"https?://[^\s\"\\]+\.zip", url):
        return url, [""] * len(NAMES)
    sys.exit(f"URL is {url!r}, BRANCH is {branch!r}; URL must be of the form "
             "https://github.com/OWNER/REPOSITORY, and BRANCH the name of a branch; or URL the "
             "address of a zip file.")


def write(archive, badges, folder=Path()):
    """Write the address of the `archive` into the notebooks of `folder`, and badges there, too."""
    for name, link in zip(NAMES, badges):
        notebook = nbformat.read(folder / f"{name}.ipynb", as_version=4)
        title = notebook.cells[0]
        title.source = (link + "\n" + BADGE.sub("", title.source)).lstrip()
        setup = next(cell for cell in notebook.cells if cell.cell_type == "code")
        setup.source = re.sub(r'(?<=^ARCHIVE = )".*?"', lambda _: f'"{archive}"', setup.source,
                              flags=re.M)
        nbformat.write(notebook, folder / f"{name}.ipynb")
    readme = folder / "README.md"
    heading, text = BADGE.sub("", readme.read_text(encoding="utf-8")).split("\n", 1)
    badges = "".join(badges) + "\n" * any(badges)
    readme.write_text(f"{heading}\n\n{badges}{text.lstrip()}", encoding="utf-8")


def publish(url, branch):
    archive, badges = read(url, branch)
    write(archive, badges)
    print(f"The notebooks now fetch {archive}. "
          + ("They and README.md have badges: commit and push them." if any(badges) else
             "Put the zip file there, and give the notebooks to the students."))


if __name__ == "__main__":
    publish(sys.argv[1], sys.argv[2])
