"""Do the notebooks' exercises and print what comes out, for the README's section for teachers.

Usage: PYTHONPATH=.:tests python benchmarks/exercises.py [WORD]   (those named by WORD)
Each is tried in a copy: the notebook is altered as the exercise says, then all its cells are run,
for DENOISE_EPOCHS epochs (1 if unset) on the data that DENOISE_DATA names.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat

from notebooks import printed
from teeth import SKIP, copy_tree, in_notebook

ADD = ("\nmodel = keras.Model(", "\nx = layers.Add()([noisy_image, x])\nmodel = keras.Model(")
LAST = ('layers.Conv2D(3, 3, padding="same", name', 'layers.Conv2D(3, 3, padding="same", '
        'kernel_initializer="zeros", name')
LOOP = ('Conv2D(64, 3, padding="same"', 'Conv2D(64, 3, dilation_rate=2, padding="same"')
NOISE = 'layers.GaussianNoise(NOISE_STD, name="noise")'
IMPULSES = '''class Impulses(layers.Layer):
    def __init__(self, amount, **options):
        super().__init__(**options)
        self.amount = amount
        self.generator = keras.random.SeedGenerator(SEED)

    def call(self, images, training=False):
        if not training:
            return images
        chance = keras.random.uniform(keras.ops.shape(images), seed=self.generator)
        images = keras.ops.where(chance < self.amount / 2, 0.0, images)
        return keras.ops.where(chance > 1 - self.amount / 2, 1.0, images)

DEPTH = 5'''
EXERCISES = [  # what it is, the notebook, and the changes: (old, new), each in one code cell
    ("as it is", "Model1", []),
    ("as it is", "Model2", []),
    ("as it is", "Model3", []),
    ("1 add the skip", "Model1", [ADD]),
    ("1 add the skip, start at zero", "Model1", [ADD, LAST]),
    ("1 drop the skip", "Model2", [(SKIP, "")]),
    ("1 slow statistics", "Model3", [("momentum=0.9,", "momentum=0.999,")]),
    ("2 another strength (tested at 0.2, too)", "Model2",
     [("NOISE_STD = 0.1 ", "NOISE_STD = 0.2 ")]),
    ("3 fewer layers", "Model2", [("DEPTH = 5", "DEPTH = 4")]),
    ("3 fewer layers", "Model3", [("DEPTH = 5", "DEPTH = 4")]),
    ("4 see further", "Model2", [LOOP]),
    ("5 another kind of noise", "Model2",
     [(NOISE, 'layers.GaussianDropout(0.034, name="noise")')]),
    ("6 a layer of your own", "Model2",
     [("DEPTH = 5", IMPULSES), (NOISE, 'Impulses(0.032, name="noise")')]),
    ("7 the usual optimizer", "Model2",
     [("common.Muon(schedule)", "keras.optimizers.Adam(schedule)"),
      ("LEARNING_RATE = 4e-3", "LEARNING_RATE = 2e-3")]),
]
REPORT = '''import json
try:
    sees = common.reach(model)
except ValueError:
    sees = None
print("REPORT", json.dumps({
    "test": scores.psnr, "picture": common.psnr(clean, written), "reach": sees,
    "first epoch": run.psnr[0], "loss": run.loss[-1],
    "corner": [bool(difference[:95, :95].max() <= 1), bool(difference[:91, :91].max() <= 1)],
    "helps from": float(levels[gain > 0][0]), "at 0.1": after[4],
    **{kind: common.psnr(few, images) for kind, images in restored.items()}}))'''


def alter(folder, name, changes):
    """Change the notebook `name` in `folder`, and have it report at its end."""
    for old, new in changes:
        in_notebook(old, new, [name])(folder)
    path = folder / f"{name}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(REPORT))
    nbformat.write(notebook, path)


def done(name, changes):
    """Run the altered notebook in a copy of the bundle. Returns its report, a dict."""
    with tempfile.TemporaryDirectory() as folder:
        copy_tree(Path(folder))
        alter(Path(folder), name, changes)
        environment = {"DENOISE_EPOCHS": "1", **os.environ}
        if os.environ.get("DENOISE_DATA", "photos") != "photos":
            environment["DENOISE_DATA"] = str(Path(os.environ["DENOISE_DATA"]).resolve())
        command = [sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute", "--inplace",
                   "--log-level=ERROR", f"{name}.ipynb"]
        subprocess.run(command, cwd=folder, env=environment, check=True, stderr=subprocess.PIPE)
        cells = nbformat.read(Path(folder) / f"{name}.ipynb", as_version=4).cells
    return json.loads(re.search("REPORT (.*)", printed(cells[-1]))[1])


if __name__ == "__main__":
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    for title, name, changes in EXERCISES:
        if word in title:
            report = done(name, changes)
            values = (f"{key} {value:.2f}" if isinstance(value, float) else f"{key} {value}"
                      for key, value in report.items())
            print(f"{title}, {name}: {', '.join(values)}", flush=True)
