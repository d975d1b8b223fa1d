"""Write build/handout/ and build/handout.zip: the practice as students get it, to be filled in.

Usage: PYTHONPATH=tests python teaching/handout.py [URL BRANCH]   (make handout, URL=…)
The notebooks have no outputs, and a hole where the network is built. The zip file is also what the
first cell of a notebook asks for in Colab. With a URL, it is published as publish.py says.
"""

import re
import shutil
import sys
from pathlib import Path

import nbformat

import publish
from notebooks import NAMES, ROOT

FOLDER = Path("build/handout")
TO_DO = '''# Yours: from `image`, a noise layer named "noise", then the layers of the drawing, in a
# loop where they repeat. Name the DEPTH convolutions "conv1", "conv2" …; call the result x.
# A skip is layers.Add, from behind the noise layer; batch normalisation has momentum=0.9.
# When all of it is here, take out the next line.
raise common.Halt("Build the network in this cell, then run all cells.")

'''
CHANGED = {
    "EPOCHS = 100           # passes over the training images: 3 for a first run":
        "EPOCHS = 3             # passes over the training images",
    "# of the first weights, the order of the images and all noise":
        "# your student number: of the first weights, the order and all noise",
    'again;\n                       # "reference": do not train, load weights/': "again",
    "\n\nThe run shown here was trained on a GPU, an NVIDIA H200, in seven minutes.": "",
    "bundle.zip": f"{FOLDER.name}.zip",
}
SOURCES = re.compile(r" \(`(benchmarks|weights)/[^)]*\)")  # they are not handed out
TAKE_AWAY = "## What to take away"


def with_hole(source):
    """Return the cell that builds the network without what students are to write."""
    head, _, rest = source.partition("noisy_image = ")
    return head + TO_DO + rest[rest.index("model = keras.Model("):]


def for_students(cell):
    """Change a `cell` of a solved notebook into one of the practice."""
    for solved, open_ in CHANGED.items():
        cell.source = cell.source.replace(solved, open_)
    if cell.cell_type == "code":
        cell.outputs, cell.execution_count = [], None
        if "keras.Input(" in cell.source:
            cell.source = with_hole(cell.source)
    elif cell.source.startswith(TAKE_AWAY):
        cell.source = f"{TAKE_AWAY}\n\nYours: three sentences, each with what shows it."
    else:
        cell.source = SOURCES.sub("", cell.source)


def write(url="", branch=""):
    archive, badges = publish.read(url, branch) if url else ("", [""] * len(NAMES))
    shutil.rmtree(FOLDER, ignore_errors=True)
    (FOLDER / "weights").mkdir(parents=True)
    for name in NAMES:
        notebook = nbformat.read(ROOT / f"{name}.ipynb", as_version=4)
        for cell in notebook.cells:
            for_students(cell)
        nbformat.write(notebook, FOLDER / f"{name}.ipynb")
        shutil.copy(ROOT / "weights" / f"{name}.json", FOLDER / "weights")
    for name in ("common.py", "noisy.png", "requirements.txt"):
        shutil.copy(ROOT / name, FOLDER)
    shutil.copy(ROOT / "teaching" / "STUDENTS.md", FOLDER / "README.md")
    publish.write(archive, badges, FOLDER)
    shutil.make_archive(str(FOLDER), "zip", FOLDER)
    print(f"{FOLDER}/ and {FOLDER}.zip are for students."
          + f" The notebooks fetch {archive}." * bool(url))


if __name__ == "__main__":
    write(*sys.argv[1:])
