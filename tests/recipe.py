"""Measure what each part of the training recipe is worth, on images held out of the training set.

Usage: PYTHONPATH=. python tests/recipe.py [--model Model2] [--steps 400] [--seeds 0 1 2]
                                           [--rows ROW ...]

Trains each ROW (all of them, if none is named) once per seed for the given number of steps
on the training set less its last 5,000 images, and scores it on those: PSNR of the mean squared
error, noise of 0.1 unclipped. Rows with the same seed share the noise and the order of the images;
the first weights too, where the initialisation is the same. DENOISE_DATA names the data.
The rows named recipe follow Model2 and Model3; Model1's notebook is recipe-not-zero.
momentum-0.9 makes a difference to Model3 alone.
"""

import argparse
import time

import keras
import numpy as np
from keras import layers

import common

HELD_OUT = 5000
BATCH_SIZE = 32
NOISE_STD = 0.1
BASELINE = {"rate": 1e-3, "schedule": "constant", "optimizer": {}, "init": "glorot_uniform",
            "last": "glorot_uniform", "momentum": 0.99, "turned": False}
ROWS = {  # by name: what differs from the baseline
    "baseline": {},
    "rate-2e-3": {"rate": 2e-3},
    "cosine": {"schedule": "cosine"},
    "beta2-0.99": {"optimizer": {"beta_2": 0.99}},
    "average": {"optimizer": {"use_ema": True, "ema_momentum": 0.99}},
    "he": {"init": "he_normal"},
    "orthogonal": {"init": "orthogonal"},
    "zero": {"last": "zeros"},
    "turned": {"turned": True},
    "momentum-0.9": {"momentum": 0.9},
}
RECIPE = {"schedule": "warm-up", "rate": 2e-3, "last": "zeros", "momentum": 0.9}
ROWS |= {
    "recipe": RECIPE,
    "recipe-not-zero": {**RECIPE, "last": "glorot_uniform"},
    "recipe-no-warm-up": {**RECIPE, "schedule": "cosine"},
    "recipe-1e-3": {**RECIPE, "rate": 1e-3},
    "recipe-4e-3": {**RECIPE, "rate": 4e-3},
    "recipe-beta2-0.99": {**RECIPE, "optimizer": {"beta_2": 0.99}},
    "recipe-turned": {**RECIPE, "turned": True},
}


class Steps(common.Batches):
    """A fixed number of training batches: epoch after epoch, cut off where the budget ends."""

    def __init__(self, images, steps, seed, turned):
        super().__init__(images, BATCH_SIZE, seed, 0)
        epochs = -(-steps * BATCH_SIZE // len(images))
        orders = [common.Batches(images, BATCH_SIZE, seed, epoch).order for epoch in range(epochs)]
        self.order = np.concatenate(orders)
        self.steps = steps
        self.seed = seed
        self.turned = turned

    def __len__(self):
        return self.steps

    def __getitem__(self, index):
        batch, _ = super().__getitem__(index)
        if self.turned:
            rng = np.random.default_rng([self.seed, index])
            batch = np.stack([turn(image, rng) for image in batch])
        return batch, batch


def turn(image, rng):
    """Return the image turned by a random multiple of 90 degrees, and flipped or not."""
    image = np.rot90(image, rng.integers(4))
    return image[:, ::-1] if rng.integers(2) else image


def build(name, row):
    """Return the network of the notebook `name`, with the initialisation and momentum of `row`."""
    image = keras.Input((None, None, 3))
    noisy = x = layers.GaussianNoise(NOISE_STD)(image)
    for _ in range(4):
        x = layers.Conv2D(64, 3, padding="same", kernel_initializer=row["init"])(x)
        if name == "Model3":
            x = layers.BatchNormalization(momentum=row["momentum"])(x)
        x = layers.ReLU()(x)
    x = layers.Conv2D(3, 3, padding="same", kernel_initializer=row["last"])(x)
    if name != "Model1":
        x = layers.Add()([noisy, x])
    return keras.Model(image, x)


def learning_rate(row, steps):
    if row["schedule"] == "constant":
        return row["rate"]
    if row["schedule"] == "cosine":
        return keras.optimizers.schedules.CosineDecay(row["rate"], steps)
    warm_up = steps // 20
    return keras.optimizers.schedules.CosineDecay(
        0.0, steps - warm_up, warmup_target=row["rate"], warmup_steps=warm_up)


def run(name, row, data, steps, seed):
    """Train one network. Returns its PSNR on the held-out images, in dB."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    model = build(name, row)
    optimizer = keras.optimizers.Adam(learning_rate(row, steps), **row["optimizer"])
    model.compile(optimizer=optimizer, loss="mse")
    model.fit(Steps(data.train[:-HELD_OUT], steps, seed, row["turned"]), shuffle=False, verbose=0)
    clean = common.to_float(data.train[-HELD_OUT:])
    noisy = common.add_noise(clean, NOISE_STD, seed=HELD_OUT)
    return common.psnr(clean, model.predict(noisy, batch_size=100, verbose=0))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="Model2", choices=["Model1", "Model2", "Model3"])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=ROWS, metavar="ROW")
    options = parser.parse_args()
    data = common.load_data()
    print(f"{options.model}, {options.steps} steps of {BATCH_SIZE} images, {data.name}: PSNR (dB)",
          f"on {HELD_OUT:,} training images held out; {common.describe_backend()}", flush=True)
    for name in options.rows:
        scores = []
        for seed in options.seeds:
            started = time.perf_counter()
            scores.append(run(options.model, {**BASELINE, **ROWS[name]}, data, options.steps, seed))
            print(f"  {options.model} {name}, seed {seed}: {scores[-1]:.3f}",
                  f"({time.perf_counter() - started:.0f} s)", flush=True)
        print(f"{name:20} {np.mean(scores):.3f} (from {min(scores):.3f} to {max(scores):.3f})",
              flush=True)


if __name__ == "__main__":
    main()
