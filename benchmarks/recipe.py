"""Measure what each part of the training recipe is worth, on images held out of the training set.

Usage: PYTHONPATH=.:tests python benchmarks/recipe.py   (make recipe)
Trains each row of the PLAN once per model and seed, on the training set less its last 5,000
images, and scores it on those: PSNR over the whole set, noise of 0.1 unclipped. What was CHOSEN so
is trained once more on all of them, and scored on the test set. Rows with the same seed share the
order of the images, on one backend their noise, too, and where the initialisation is the same, the
first weights. DENOISE_DATA names the data, CIFAR-10 for one; in recipe.csv that name means the
held-out images, and "CIFAR-10 test" the test set. What stands there is not measured again: to do
so, delete all lines but the first.
"""

import csv
import itertools
import pathlib

import numpy as np

import common
import notebooks
from common import keras  # without the chatter of its backend
from notebooks import NAMES

HELD_OUT = 5000
BATCH_SIZE = 32
NOISE_STD = 0.1
NOISE_SEED = 5000  # of the images that are scored
MEASURED = pathlib.Path(__file__).with_name("recipe.csv")
PLAIN = {"optimizer": keras.optimizers.Adam, "rate": 1e-3, "warm-up": False, "decay": False,
         "zero": False, "batchnorm": 0.99}
RECIPE = {"optimizer": common.Muon, "rate": 4e-3, "warm-up": True, "decay": True, "zero": True,
          "batchnorm": 0.9}
DOUBLE = {**RECIPE, "rate": 8e-3}
TAKEN = {  # by Muon, of the kernels (height, width, in, out)
    "wide": lambda shape: min(shape[2:]) >= 16,  # as in the notebooks
    "first": lambda shape: shape[3] >= 16,  # those and the one of the first layer
    "all": lambda shape: True,
}


class Muon(common.Muon):
    """Muon for the `kernels` of TAKEN, Adam for all other variables at a `share` of the rate."""

    def __init__(self, learning_rate, kernels, share):
        super().__init__(learning_rate)
        self.kernels, self.share = kernels, share

    def takes(self, shape):
        return len(shape) == 4 and TAKEN[self.kernels](shape)

    def update_step(self, gradient, variable, learning_rate):
        share = 1.0 if self.takes(variable.shape) else self.share
        super().update_step(gradient, variable, share * learning_rate)


ROWS = {
    "plain": PLAIN,
    "adam": {**RECIPE, "optimizer": keras.optimizers.Adam, "rate": 2e-3},
    "muon": RECIPE,
    "muon-2e-3": {**RECIPE, "rate": 2e-3},
    "muon-8e-3": DOUBLE,
    "muon-8e-3-momentum-0.8": {**DOUBLE, "options": {"momentum": 0.8}},
    "muon-8e-3-momentum-0.95": {**DOUBLE, "options": {"momentum": 0.95}},
    "muon-8e-3-no-warm-up": {**DOUBLE, "warm-up": False},
    "muon-8e-3-no-decay": {**DOUBLE, "decay": False},
    "muon-8e-3-not-zero": {**DOUBLE, "zero": False},
    "muon-8e-3-batchnorm-0.99": {**DOUBLE, "batchnorm": 0.99},
}
PLAN = [  # steps, rows, seeds
    (400, [row for row in ROWS if row != "muon-2e-3"], (0, 1, 2)),
    (1404, ["adam", "muon", "muon-8e-3"], (0, 1, 2)),
    (1404, ["plain"], (0,)),
    (4212, ["plain", "adam", "muon", "muon-2e-3", "muon-8e-3"], (0,)),
    (14040, ["muon", "muon-8e-3"], (0,)),
]
for optimizer, lowest in (("muon", 1e-3), ("adam", 5e-4)):
    for rate in (lowest * 2**i for i in range(6)):
        ROWS[f"{optimizer}-at-{rate:g}"] = {**ROWS[optimizer], "rate": rate}
        seeds = (0, 1, 2) if rate >= 16e-3 else (0,)  # where networks break, chance decides
        PLAN.append((400, [f"{optimizer}-at-{rate:g}"], seeds))
CANDIDATES = {}
for kernels, rate, divisor, longest in (  # what Muon takes, its rate; Adam's is rate / divisor
        ("wide", 4e-3, 1, 4212), ("wide", 8e-3, 4, 400), ("all", 8e-3, 1, 400),
        ("first", 4e-3, 1, 4212), ("first", 8e-3, 1, 4212), ("first", 8e-3, 2, 400),
        ("first", 8e-3, 4, 4212), ("first", 8e-3, 8, 400), ("first", 16e-3, 1, 400)):
    row = f"{kernels}-at-{rate:g}-adam-{divisor}"
    CANDIDATES[row] = {**RECIPE, "optimizer": Muon, "rate": rate,
                       "options": {"kernels": kernels, "share": 1 / divisor}}
    PLAN += [(steps, [row], (0,)) for steps in (400, 1404, 4212) if steps <= longest]
ROWS |= CANDIDATES
CHOSEN = [(steps, ["first-at-0.004-adam-1"], (0,)) for steps in (1560, 3120, 4680)]  # 1 to 3 epochs
ONLY_IN = {"muon-8e-3-not-zero": ("Model2", "Model3"), "muon-8e-3-batchnorm-0.99": ("Model3",)}


def batches(images, steps, seed):
    """Return this number of `steps`, training batches, of one epoch's order after another.

    A batch may begin in one epoch and end in the next.
    """
    found, orders = common.Batches(images, BATCH_SIZE, seed), []
    for epoch in range(-(-steps * BATCH_SIZE // len(images))):
        found.shuffle(epoch)
        orders.append(found.order)
    found.order = np.concatenate(orders)[:steps * BATCH_SIZE]
    return found


def build(name, row, seed=0):
    """Return the network of the notebook `name`, by its own cell, started as `row` says."""
    source = notebooks.code_with(name, "keras.Input(").replace(
        "momentum=0.9,", f"momentum={row['batchnorm']},")
    if not row["zero"]:
        source = source.replace('kernel_initializer="zeros", ', "")
    variables = {"keras": keras, "layers": keras.layers, "np": np, "NAME": name,
                 "NOISE_STD": NOISE_STD, "SEED": seed}
    with notebooks.quiet():
        exec(source, variables)
    return variables["model"]


def learning_rate(row, steps):
    """Return the schedule of the learning rate over `steps` steps."""
    warm_up = steps // 20 if row["warm-up"] else 0
    return keras.optimizers.schedules.CosineDecay(  # without warm-up, it starts at warmup_target
        0.0, steps - warm_up, alpha=0.0 if row["decay"] else 1.0,
        warmup_target=row["rate"], warmup_steps=warm_up)


def run(name, row, data, steps, seed):
    """Train one network on `data.train`. Returns its PSNR on `data.test`, in dB."""
    model = build(name, row, seed)
    optimizer = row["optimizer"](learning_rate(row, steps), **row.get("options", {}))
    model.compile(optimizer=optimizer, loss="mse")
    model.fit(batches(data.train, steps, seed), shuffle=False, verbose=0)
    clean = common.to_float(data.test)
    noisy = common.add_noise(clean, NOISE_STD, NOISE_SEED)
    return common.psnr(clean, model.predict(noisy, batch_size=100, verbose=0))


def measured():
    """Return what recipe.csv holds: {(data, steps, model, row, seed): PSNR}."""
    with open(MEASURED, newline="", encoding="utf-8") as file:
        return {tuple(key): float(value) for *key, value in list(csv.reader(file))[1:]}


def measure(data, steps, rows, seeds):
    """Train what recipe.csv lacks, and add it there."""
    for name, seed, row in itertools.product(NAMES, seeds, rows):
        key = (data.name, str(steps), name, row, str(seed))
        if key in measured() or name not in ONLY_IN.get(row, NAMES):
            continue
        reached = run(name, ROWS[row], data, steps, seed)
        print(*key, f"{reached:.3f} dB", flush=True)
        with open(MEASURED, "a", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerow([*key, f"{reached:.4f}"])


def tables():
    """Return what recipe.csv holds as Markdown tables: means over the seeds, and ranges.

    The first is of the recipe. The others are of the CANDIDATES, held-out images before test set.
    """
    found = {}
    for (data, steps, name, row, _), value in measured().items():
        rows = found.setdefault((row in CANDIDATES, data), {})
        rows.setdefault((int(steps), row), {}).setdefault(name, []).append(value)
    return ["\n".join(lines(data, rows)) for (_, data), rows in sorted(found.items())]


def lines(data, rows):
    """Yield the lines of a table of `rows`: {(steps, row): {model: one PSNR a seed}}."""
    yield f"| {data}, steps | row | {' | '.join(NAMES)} |"
    yield "|---|---|---|---|---|"
    for steps, row in sorted(rows, key=lambda each: (each[0], list(ROWS).index(each[1]))):
        cells = (rows[steps, row].get(name, ()) for name in NAMES)
        texts = (f"{np.mean(cell):.2f} ({min(cell):.2f} to {max(cell):.2f})" if len(cell) > 1
                 else f"{cell[0]:.2f}" if cell else "" for cell in cells)
        yield f"| {steps:,} | `{row}` | {' | '.join(texts)} |"


if __name__ == "__main__":
    data = common.load_data()
    held_out = data._replace(train=data.train[:-HELD_OUT], test=data.train[-HELD_OUT:])
    for part in PLAN:
        measure(held_out, *part)
    for part in CHOSEN:
        measure(data._replace(name=f"{data.name} test"), *part)
    print(*tables(), sep="\n\n")
