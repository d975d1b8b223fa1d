"""Write build/handout/ and build/handout.zip: the practice as students get it, to be filled in.

Usage: PYTHONPATH=tests python teaching/handout.py [URL BRANCH]   (make handout, URL=…)
The notebooks have no outputs, and a hole where the network is built. The zip file is also what the
first cell of a notebook asks for in Colab. With a URL, it is published as publish.py says.
"""

import shutil
import sys
from pathlib import Path

import nbformat

import publish
from notebooks import NAMES, ROOT

FOLDER = Path("build/handout")
TO_DO = '''# Yours: from `image`, a noise layer named "noise", then the layers of the drawing above,
# their convolutions named "conv1", "conv2" …; call the result x. A skip starts behind the
# noise layer. When all of it is here, take out the next line.
raise common.Halt("Build the network in this cell, then run all cells.")

'''


def with_hole(source):
    """Return the cell that builds the network without what students are to write."""
    head, _, rest = source.partition("noisy_image = ")
    return head + TO_DO + rest[rest.index("model = keras.Model("):]


def write_notebook(name):
    notebook = nbformat.read(ROOT / f"{name}.ipynb", as_version=4)
    for cell in notebook.cells:
        cell.source = cell.source.replace("bundle.zip", f"{FOLDER.name}.zip")
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            if "keras.Input(" in cell.source:
                cell.source = with_hole(cell.source)
    nbformat.write(notebook, FOLDER / f"{name}.ipynb")


def write(url="", branch=""):
    shutil.rmtree(FOLDER, ignore_errors=True)
    (FOLDER / "weights").mkdir(parents=True)
    for name in NAMES:
        write_notebook(name)
        shutil.copy(ROOT / "weights" / f"{name}.json", FOLDER / "weights")
    for name in ("common.py", "noisy.png", "requirements.txt"):
        shutil.copy(ROOT / name, FOLDER)
    shutil.copy(ROOT / "teaching" / "STUDENTS.md", FOLDER / "README.md")
    publish.write("", [""] * len(NAMES), FOLDER)  # those of the solved bundle
    if url:
        publish.publish(url, branch, FOLDER)
    shutil.make_archive(str(FOLDER), "zip", FOLDER)
    print(f"{FOLDER}/ and {FOLDER}.zip are for students.")


if __name__ == "__main__":
    write(*sys.argv[1:])
