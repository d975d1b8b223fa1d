"""Measure training on this machine: speed and memory, ours beside the coursework's plain code.

Usage: PYTHONPATH=.:tests python benchmarks/benchmark.py [--rounds 3] [--steps 100] [--kills 10]
Each measurement is a process of its own, and ours and the plain code's take turns. Last, a brief
training is killed again and again at random moments, and has to end like one never killed.
"""

import argparse
import contextlib
import json
import os
import random
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import keras
import numpy as np

import brief_training
import common
import notebooks
import recipe

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

    def report(self):
        kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(json.dumps({"images_per_second": self.images_per_second,
                          "gigabytes": kilobytes * 1024 / 1e9}))


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
        with contextlib.suppress(Enough):
            notebooks.train(variables)


def train_plainly(name, stopwatch):
    """Train as the coursework is commonly solved: float64 arrays straight into fit()."""
    x_train = random_images(TRAIN_IMAGES) / 255.0
    x_test = random_images(TEST_IMAGES) / 255.0
    model = recipe.build(name, recipe.PLAIN)
    model.compile(optimizer="adam", loss="mse")
    with contextlib.suppress(Enough):
        model.fit(x_train, x_train, batch_size=32, epochs=1, validation_data=(x_test, x_test),
                  verbose=0, callbacks=[stopwatch])


KINDS = {"ours": train_ours, "plain": train_plainly}


def measure(kind, name, steps):
    """Run one measurement in a process of its own. Returns what Stopwatch.report() printed."""
    command = [sys.executable, __file__, "--measure", kind, name, "--steps", str(steps)]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return json.loads(output.splitlines()[-1])


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
        found = [{kind: measure(kind, name, steps) for kind in KINDS} for _ in range(rounds)]
        line = f"{name:8}"
        for what, digits in (("images_per_second", 0), ("gigabytes", 2)):
            for kind in KINDS:
                middle = statistics.median(measured[kind][what] for measured in found)
                line += f"{middle:10.{digits}f}"
            ratios = [measured["ours"][what] / measured["plain"][what] for measured in found]
            line += f"{statistics.median(ratios):10.2f}"
        print(line, flush=True)


def kill_again_and_again(kills, epochs=40):
    """Kill a brief training `kills` times at random, let it end, and compare with one not killed.

    Returns whether they were the same.
    """
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(kills):
            process = start_brief_training(folder, epochs)
            next(line for line in process.stdout if line.startswith("epoch"))
            time.sleep(rng.uniform(0, 0.5))
            process.send_signal(signal.SIGKILL)
            process.communicate()
            assert process.returncode == -signal.SIGKILL, "it ended before it was killed"
        result = end_of_brief_training(folder, epochs)
    with tempfile.TemporaryDirectory() as folder:
        same = brief_training.same(result, end_of_brief_training(folder, epochs))
    print(f"\nA training of {epochs} brief epochs, killed {kills} times at random, ended in "
          f"{'the same' if same else 'NOT the same'} weights and history as one never killed.")
    return same


def start_brief_training(folder, epochs):
    command = [sys.executable, str(notebooks.ROOT / "tests" / "brief_training.py"), "result.npz"]
    environment = {name: value for name, value in os.environ.items()
                   if not name.startswith("DENOISE_")}
    return subprocess.Popen([*command, str(epochs)], cwd=folder, stdout=subprocess.PIPE, text=True,
                            env={**environment, "PYTHONPATH": str(notebooks.ROOT)})


def end_of_brief_training(folder, epochs):
    process = start_brief_training(folder, epochs)
    process.communicate()
    assert process.returncode == 0
    return brief_training.read(Path(folder, "result.npz"))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--measure", nargs=2, metavar=("KIND", "NAME"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        kind, name = options.measure
        stopwatch = Stopwatch(options.steps)
        KINDS[kind](name, stopwatch)
        stopwatch.report()
        return 0
    compare(options.rounds, options.steps)
    if common._gpus():
        return 0  # a GPU does not repeat its sums bit by bit
    return 0 if kill_again_and_again(options.kills) else 1


if __name__ == "__main__":
    sys.exit(main())
