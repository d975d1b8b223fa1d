"""Measure training on this machine: speed and memory, ours beside the coursework's plain code.

Usage: PYTHONPATH=.:tests python benchmarks/benchmark.py [--rounds 3] [--steps 100]   (on Linux)
Each measurement is a process of its own, and ours and the plain code's take turns.
"""

import argparse
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
WARM_UP = 10  # steps not timed: the first of them compile the network
FLOP_PER_IMAGE = 0.70e9  # of a training step: 32 × 32 pixels × 0.228 MFLOP forward, times three


class Enough(Exception):
    """The measurement is complete."""


class Stopwatch(keras.callbacks.Callback):
    """Stop training after some steps, and know how long they took."""

    def __init__(self, steps):
        super().__init__()
        self.steps = steps
        self.first = None

    def on_train_batch_end(self, batch, logs=None):
        if batch >= WARM_UP and self.first is None:
            self.first, self.start = batch, time.perf_counter()
        if batch >= WARM_UP + self.steps:
            seconds = time.perf_counter() - self.start
            self.images_per_second = 32 * (batch - self.first) / seconds
            raise Enough


def random_images(number):
    return np.random.default_rng(number).integers(0, 256, (number, 32, 32, 3), np.uint8)


def train_ours(name, stopwatch):
    """Train as the notebook does, by its own cells."""
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


def measure(kind, name, steps):
    """Return images per second, and the peak of the memory in GB."""
    stopwatch = Stopwatch(steps)
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


def product_rate():
    """Return the floating-point operations per second of NumPy's product of large matrices."""
    matrix = np.random.default_rng(0).random((3000, 3000), np.float32)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        matrix @ matrix
        seconds.append(time.perf_counter() - start)
    return 2 * 3000**3 / min(seconds)


def compare(rounds, steps):
    """Print the table of speed and memory: medians over the rounds, ratios within a round."""
    rate = product_rate()
    print(f"{common.describe_backend()}. NumPy's matrix product on the CPU: {rate / 1e9:.0f} "
          f"GFLOP/s; at that rate, {rate / FLOP_PER_IMAGE:.0f} images/s.")
    print(f"{rounds} rounds of {steps} steps of 32 images, {TRAIN_IMAGES:,} images in memory; "
          "memory is the peak until then.\n")
    print(f"{'':8}{'images per second':^30}{'peak memory (GB)':^30}")
    print(f"{'':8}" + 2 * f"{'ours':>10}{'plain':>10}{'ratio':>10}")
    for name in notebooks.NAMES:
        found = [{kind: in_a_process(measure, kind, name, steps) for kind in KINDS}
                 for _ in range(rounds)]
        line = f"{name:8}"
        for what, digits in enumerate((0, 2)):
            for kind in KINDS:
                middle = statistics.median(measured[kind][what] for measured in found)
                line += f"{middle:10.{digits}f}"
            ratios = [measured["ours"][what] / measured["plain"][what] for measured in found]
            line += f"{statistics.median(ratios):10.2f}"
        print(line, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args()
    compare(options.rounds, options.steps)
