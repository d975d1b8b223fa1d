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
from nbconvert.preprocessors import ClearOutputPreprocessor

import publish
from notebooks import NAMES, ROOT, code_with

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
PATTERNS = {
    r" \(`(benchmarks|weights)/[^)]*\)": "",  # which are not handed out
    r"(?s)(## What to take away\n).*": r"\1\nYours: three sentences, each with what shows it.",
}


def write_notebook(name):
    notebook = nbformat.read(ROOT / f"{name}.ipynb", as_version=4)
    ClearOutputPreprocessor().preprocess(notebook, {})
    network = code_with(name, "keras.Input(")
    network = network[network.index("noisy_image = "):network.index("model = keras.Model(")]
    for cell in notebook.cells:
        for solved, given in {network: TO_DO, **CHANGED}.items():
            cell.source = cell.source.replace(solved, given)
        for solved, given in PATTERNS.items():
            cell.source = re.sub(solved, given, cell.source)
    nbformat.write(notebook, FOLDER / f"{name}.ipynb")


def write(url="", branch=""):
    archive, badges = publish.read(url, branch) if url else ("", [""] * len(NAMES))
    shutil.rmtree(FOLDER, ignore_errors=True)
    shutil.copytree(ROOT / "weights", FOLDER / "weights",
                    ignore=shutil.ignore_patterns("*.h5", "*.csv"))  # histories alone
    for name in NAMES:
        write_notebook(name)
    for name in ("common.py", "noisy.png", "requirements.txt"):
        shutil.copy(ROOT / name, FOLDER)
    shutil.copy(ROOT / "teaching" / "STUDENTS.md", FOLDER / "README.md")
    publish.write(archive, badges, FOLDER)
    shutil.make_archive(str(FOLDER), "zip", FOLDER)
    print(f"{FOLDER}/ and {FOLDER}.zip are for students."
          + f" The notebooks fetch {archive}." * bool(url))


if __name__ == "__main__":
    write(*sys.argv[1:])
