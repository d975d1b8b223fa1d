"""Measure training on this machine: speed and memory, ours beside the coursework's plain code.

Usage: PYTHONPATH=.:tests python benchmarks/benchmark.py   (make benchmark; on Linux)
Each measurement is a process of its own, and ours and the plain code's take turns.
"""

import concurrent.futures
import contextlib
import io
import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

import common
import notebooks
import recipe
from common import keras  # without the chatter of its backend

TRAIN_IMAGES, TEST_IMAGES = 50_000, 10_000
ROUNDS, STEPS = 3, 100
WARM_UP = 10  # steps not timed: the first of them compile the network


class Enough(Exception):
    """The measurement is complete."""


class Stopwatch(keras.callbacks.Callback):
    """Stop training after some steps, and know how fast they were."""

    def on_train_batch_end(self, batch, logs=None):
        if batch == WARM_UP:
            self.start = time.perf_counter()
        if batch == WARM_UP + STEPS:
            self.images_per_second = 32 * STEPS / (time.perf_counter() - self.start)
            raise Enough


def random_images(number):
    return np.random.default_rng(number).integers(0, 256, (number, 32, 32, 3), np.uint8)


def train_ours(name, stopwatch):
    """Train as the notebook does, by its own cells."""
    common.STEPS_PER_CALL = 1  # on a GPU, too: the stopwatch counts them
    data = common.Data("random", random_images(TRAIN_IMAGES), random_images(TEST_IMAGES))
    with tempfile.TemporaryDirectory() as folder:
        variables = notebooks.built(name, data, epochs=1, TRAINING="resume", CHECKPOINTS=folder)
        fit = variables["model"].fit
        variables["model"].fit = lambda *args, callbacks, **options: fit(
            *args, callbacks=[*callbacks, stopwatch], **options)
        notebooks.train(variables)


def train_plainly(name, stopwatch):
    """Train as the coursework is commonly solved: float64 arrays straight into fit()."""
    x_train = random_images(TRAIN_IMAGES) / 255.0
    x_test = random_images(TEST_IMAGES) / 255.0
    model = recipe.build(name, recipe.PLAIN)
    model.compile(optimizer="adam", loss="mse")
    model.fit(x_train, x_train, batch_size=32, epochs=1, validation_data=(x_test, x_test),
              verbose=0, callbacks=[stopwatch])


KINDS = {"ours": train_ours, "plain": train_plainly}


def measure(kind, name):
    """Return images per second, and the peak of the memory in GB."""
    stopwatch = Stopwatch()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(Enough):
        KINDS[kind](name, stopwatch)
    return stopwatch.images_per_second, memory("VmHWM") / 1000


def memory(key):
    """Return an entry of Linux's account of this process, in MB: VmRSS now, VmHWM at its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) * 1024 / 1e6


def in_a_process(function, *arguments):
    """Call `function`, which a module holds, in a new process. Returns what it returns."""
    fresh = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, fresh) as pool:
        return pool.submit(function, *arguments).result()


if __name__ == "__main__":
    print(f"{common.describe_backend()}. {ROUNDS} rounds of {STEPS} steps of 32 images, "
          f"{TRAIN_IMAGES:,} images in memory;\nmedians, and ratios within a round; memory is the "
          "peak until then.\n")
    print(f"{'':8}{'images per second':^30}{'peak memory (GB)':^30}")
    print(f"{'':8}" + 2 * f"{'ours':>10}{'plain':>10}{'ratio':>10}")
    for name in notebooks.NAMES:
        found = np.array([[in_a_process(measure, kind, name) for kind in KINDS]
                          for _ in range(ROUNDS)])
        line = f"{name:8}"
        for what, digits in enumerate((0, 2)):
            ours, plain = found[:, :, what].T
            line += f"{statistics.median(ours):10.{digits}f}{statistics.median(plain):10.{digits}f}"
            line += f"{statistics.median(ours / plain):10.2f}"
        print(line, flush=True)
