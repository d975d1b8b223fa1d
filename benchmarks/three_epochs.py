"""Draw PSNR over three epochs of Model2 by our recipe, by Adam's and by the plain code.

Usage: PYTHONPATH=.:tests python benchmarks/three_epochs.py   (make three_epochs)
Some twenty times an epoch, the first 500 test images are scored (PSNR over the whole set, noise of
0.1 unclipped); what that takes is not counted. Nothing is chosen by them. DENOISE_DATA names the
data. Writes three_epochs.png and three_epochs.csv beside this script; the first line of the CSV
names the data and the device. What it holds already is not trained again.
"""

import csv
import pathlib
import time

import matplotlib.pyplot as plt
import numpy as np

import common
import recipe
from common import keras  # without the chatter of its backend

EPOCHS, POINTS, TEST_IMAGES, SEED = 3, 20, 500, 0
MEASURED = pathlib.Path(__file__).with_name("three_epochs.csv")
LABELS = {"muon": "ours: Muon", "adam": "ours with Adam", "plain": "plain code: Adam at 1e-3"}


class Ruler(keras.callbacks.Callback):
    """Score the network again and again, and stop the clock meanwhile."""

    def __init__(self, batches, clean):
        super().__init__()
        self.batches, self.clean = batches, clean
        self.noisy = common.add_noise(clean, recipe.NOISE_STD, SEED)
        self.seconds, self.rows = 0.0, []

    def on_epoch_begin(self, epoch, logs=None):
        self.batches.shuffle(epoch)
        self.epoch, self.started = epoch, time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        every = len(self.batches) // POINTS
        if (batch + 1) % every and batch + 1 != len(self.batches):
            return
        self.seconds += time.perf_counter() - self.started
        reached = common.psnr(self.clean, self.model.predict_on_batch(self.noisy))
        epoch = self.epoch + (batch + 1) / len(self.batches)
        self.rows.append([f"{epoch:.4f}", f"{self.seconds:.1f}", f"{reached:.4f}"])
        self.started = time.perf_counter()


def train(name, data):
    """Train Model2 by the row `name` of recipe.py. Returns lines of epoch, seconds and PSNR."""
    row = recipe.ROWS[name]
    model = recipe.build("Model2", row, SEED)
    batches = common.Batches(data.train, recipe.BATCH_SIZE, SEED)
    rate = recipe.learning_rate(row, EPOCHS * len(batches))
    model.compile(optimizer=row["optimizer"](rate), loss="mse")
    ruler = Ruler(batches, common.to_float(data.test[:TEST_IMAGES]))
    model.fit(batches, epochs=EPOCHS, shuffle=False, verbose=0, callbacks=[ruler])
    return ruler.rows


def measured():
    """Return what the CSV holds: {name: array of epoch, seconds and PSNR}."""
    lines = MEASURED.read_text(encoding="utf-8").splitlines() if MEASURED.exists() else []
    rows = list(csv.reader(lines))[2:]
    return {name: np.array([row[1:] for row in rows if row[0] == name], float)
            for name in dict.fromkeys(row[0] for row in rows)}


def draw(found, title):
    figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
    colours = {"muon": "#009E73", "adam": "#56B4E9", "plain": "#D55E00"}
    for name, label in LABELS.items():
        epochs, _, reached = found[name].T
        axes.plot(epochs, reached, color=colours[name], label=f"{label} ({reached[-1]:.2f} dB)")
    axes.set(title=title, xlabel="epoch", ylabel="PSNR (dB)", xlim=(0, EPOCHS), ylim=(25, 29))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(MEASURED.with_suffix(".png"), dpi=150)


def main():
    for name in LABELS:
        if name not in measured():
            data = common.load_data()
            lines = [",".join([name, *row]) for row in train(name, data)]
            if not MEASURED.exists():
                lines[:0] = [f"# {data.name}, {common.describe_backend()}",
                             "recipe,epoch,seconds,psnr"]
            with open(MEASURED, "a", encoding="utf-8") as file:
                file.write("\n".join(lines) + "\n")
    found = measured()
    title = MEASURED.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
    draw(found, f"Model2 on {title.partition(',')[0]}: {TEST_IMAGES} test images")
    goal = np.interp(1, *found["muon"].T[[0, 2]])
    print(f"{title}. PSNR after each epoch (dB), and the time after which it first is what ours is "
          f"after one epoch ({goal:.2f} dB):")
    for name, label in LABELS.items():
        epochs, seconds, reached = found[name].T
        after = " ".join(f"{np.interp(i, epochs, reached):.2f}" for i in range(1, EPOCHS + 1))
        there = reached >= goal
        first = f"{seconds[there.argmax()] / 60:.1f} min" if there.any() else "not reached"
        print(f"{label:36} {after}   {first}")


if __name__ == "__main__":
    main()
