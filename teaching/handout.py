"""Write build/handout/ and build/handout.zip: the practice as students get it, to be filled in.

Usage: PYTHONPATH=tests python teaching/handout.py [URL BRANCH]   (make handout, URL=…)
The notebooks have no outputs, and a hole where the network is built. The zip file is also what the
first cell of a notebook asks for in Colab. With a URL, it is published as publish.py says.
"""

import shutil
import sys
from pathlib import Path

import nbformat
from nbconvert.preprocessors import ClearOutputPreprocessor

import publish
from notebooks import NAMES, ROOT, alter, code_with

FOLDER = Path("build/handout")
TO_DO = '''# Yours: from `image`, a noise layer named "noise", then the layers of the drawing above,
# their convolutions named "conv1", "conv2" …; call the result x. A skip starts behind the
# noise layer. When all of it is here, take out the next line.
raise common.Halt("Build the network in this cell, then run all cells.")

'''


def write_notebook(name):
    text = (ROOT / f"{name}.ipynb").read_text(encoding="utf-8")
    notebook = nbformat.reads(text.replace("bundle.zip", f"{FOLDER.name}.zip"), as_version=4)
    ClearOutputPreprocessor().preprocess(notebook, {})
    nbformat.write(notebook, FOLDER / f"{name}.ipynb")
    source = code_with(name, "keras.Input(")
    solution = source[source.index("noisy_image = "):source.index("model = keras.Model(")]
    alter(FOLDER, name, solution, TO_DO)


def write(url="", branch=""):
    shutil.rmtree(FOLDER, ignore_errors=True)
    shutil.copytree(ROOT / "weights", FOLDER / "weights",
                    ignore=shutil.ignore_patterns("*.h5", "*.csv"))  # histories alone
    for name in NAMES:
        write_notebook(name)
    for name in ("common.py", "noisy.png", "requirements.txt"):
        shutil.copy(ROOT / name, FOLDER)
    shutil.copy(ROOT / "teaching" / "STUDENTS.md", FOLDER / "README.md")
    publish.write("", "", FOLDER)  # not those of the solved bundle
    if url:
        publish.publish(url, branch, FOLDER)
    shutil.make_archive(str(FOLDER), "zip", FOLDER)
    print(f"{FOLDER}/ and {FOLDER}.zip are for students.")


if __name__ == "__main__":
    write(*sys.argv[1:])
