"""Do the notebooks' exercises and print what comes out: the table of ANSWERS.md.

Usage: PYTHONPATH=.:tests python teaching/exercises.py   (make exercises)
Each is done in a copy of its notebook, which is altered as the exercise says, by the notebook's own
cells. Trains for DENOISE_EPOCHS epochs (1 if unset) on the data that DENOISE_DATA names; the test
images have noise of 0.1 whatever the network was trained on, and the first 500 of them also noise
of other kinds and strengths.
"""

import os
import shutil
import tempfile

import numpy as np
from skimage.util import random_noise

import common
import notebooks
from notebooks import SKIP

NOISE = 'layers.GaussianNoise(NOISE_STD, name="noise")'
IMPULSES = '''class Impulses(layers.Layer):
    def build(self, shape):
        self.generator = keras.random.SeedGenerator(SEED)

    def call(self, images, training=False):
        if not training:
            return images
        chance = keras.random.uniform(keras.ops.shape(images), seed=self.generator)
        images = keras.ops.where(chance < 0.016, 0.0, images)
        return keras.ops.where(chance > 0.984, 1.0, images)

DEPTH = 5'''
EXERCISES = [  # the notebook, what it is, and the changes: (old, new), each in one code cell
    ("Model1", "as it is", []),
    ("Model1", "1 another strength", [("NOISE_STD = 0.1 ", "NOISE_STD = 0.2 ")]),
    ("Model1", "2 another kind of noise", [(NOISE, 'layers.GaussianDropout(0.034, name="noise")')]),
    ("Model1", "3 a layer of your own",
     [("DEPTH = 5", IMPULSES), (NOISE, 'Impulses(name="noise")')]),
    ("Model2", "as it is", []),
    ("Model2", "1 drop the skip", [(SKIP, "")]),
    ("Model2", "2 fewer layers", [("DEPTH = 5", "DEPTH = 4")]),
    ("Model2", "2 another seed", [("SEED = 0 ", "SEED = 1 ")]),
    ("Model2", "3 see further",
     [('Conv2D(64, 3, padding="same"', 'Conv2D(64, 3, dilation_rate=2, padding="same"')]),
    ("Model2", "4 the usual optimizer",
     [("common.Muon(schedule)", "keras.optimizers.Adam(schedule)"),
      ("LEARNING_RATE = 4e-3", "LEARNING_RATE = 2e-3")]),
    ("Model3", "as it is", []),
    ("Model3", "1 slow statistics", [("momentum=0.9,", "momentum=0.999,")]),
    ("Model3", "2 four layers", [("DEPTH = 5", "DEPTH = 4")]),
    ("Model3", "3 no skip", [(SKIP, "")]),
    ("Model2", "wrong: the skip from the clean image", [("([noisy_image, x])", "([image, x])")]),
    ("Model2", "wrong: clipped noise",
     [(f"{NOISE}(image)", f"keras.ops.clip({NOISE}(image), 0, 1)")]),
]
LEVELS = (0.02, 0.04, 0.06, 0.2)


def altered(folder, name, changes):
    """Copy the notebook `name` into `folder`, with the changes."""
    shutil.copy(notebooks.ROOT / f"{name}.ipynb", folder)
    for change in changes:
        notebooks.alter(folder, name, *change)


def done(name, changes, data, epochs):
    """Train the altered notebook's network. Returns the loss of its last epoch and the model."""
    with tempfile.TemporaryDirectory() as folder, notebooks.quiet():
        altered(folder, name, changes)
        variables = notebooks.built(name, data, epochs, folder, CHECKPOINTS=folder)
        run = notebooks.train(variables)
    return run.loss[-1], variables["model"]


def reached(model, clean, noisy):
    return common.psnr(clean, model.predict(noisy, batch_size=100, verbose=0))


def report(model, clean):
    """Return the PSNR (dB) on `clean` test images with noise, by what the noise is."""
    variables = {"np": np, "random_noise": random_noise, "rng": np.random.default_rng(0)}
    exec(notebooks.code_with("Model1", "def four_kinds(").partition("common.")[0], variables)
    few = clean[:500]
    noisy = variables["four_kinds"](few)
    del noisy["Gaussian"]
    noisy |= {f"noise of {level}": common.add_noise(few, level, 0) for level in LEVELS}
    return {"test": reached(model, clean, common.add_noise(clean, 0.1, 0)),
            **{each: reached(model, few, images) for each, images in noisy.items()}}


def mistakes(model, clean):
    """Return what usual mistakes in the use of a network seem to reach: PSNR (dB) by mistake."""
    few, picture = clean[:500], common.to_float(common.noisy_picture())
    restored = model.predict(picture[np.newaxis], verbose=0)[0]
    stretched = (restored - restored.min()) / np.ptp(restored)
    noisy = common.add_noise(few, 0.1, 0)
    return {"tested on images without noise": reached(model, few, few),
            "called with training=True": common.psnr(few, np.asarray(model(noisy, training=True))),
            "noisy.png": common.psnr(common.clean_picture(), np.clip(restored, 0, 1)),
            "noisy.png, stretched": common.psnr(common.clean_picture(), stretched)}


if __name__ == "__main__":
    data = common.load_data()
    epochs = int(os.environ.get("DENOISE_EPOCHS") or 1)
    clean = common.to_float(data.test)
    print(f"{len(clean):,} test images of {data.name}, epochs: {epochs}, on "
          f"{len(data.train):,} training images; PSNR in dB")
    wrong = []
    for i, (name, title, changes) in enumerate(EXERCISES):
        loss, model = done(name, changes, data, epochs)
        found = {"training batches": -10 * np.log10(loss), **report(model, clean)}
        if i == 0:
            print("| notebook | exercise |", " | ".join(found), "|")
            print("|---|---|" + len(found) * "---|")
        print(f"| {name} | {title} |", " | ".join(f"{v:.2f}" for v in found.values()), "|",
              flush=True)
        if not changes or "wrong" in title:
            wrong += [f"{name} {title}, {each}: {v:.2f} dB"
                      for each, v in mistakes(model, clean).items()]
    print(*wrong, sep="\n")
