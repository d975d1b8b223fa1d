"""Measure on this machine: pictures beside classical methods, training beside the plain code.

Usage: PYTHONPATH=.:tests python benchmarks/benchmark.py   (make benchmark; on Linux)
The networks are those in weights/. Each row of the first table and each training is a process of
its own. BM3D's row is left out unless bm3d is installed (pip install bm3d).
"""

import concurrent.futures
import contextlib
import importlib.util
import multiprocessing
import tempfile
import time
from pathlib import Path

import numpy as np
import skimage.data

import common
import notebooks
import recipe
from common import keras  # without the chatter of its backend

NOISE_STD = 0.1
TRAIN_IMAGES, TEST_IMAGES = 50_000, 10_000
ROUNDS, STEPS = 3, 100
WARM_UP = 10  # steps not timed: the first of them compile the network


def in_a_process(function, *arguments):
    """Call `function`, which a module holds, in a new process. Returns what it returns."""
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def memory(key):
    """Return an entry of Linux's account of this process, in MB: VmRSS now, VmHWM at its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) * 1024 / 1e6


def peak_of(function, *arguments):
    """Call `function`. Returns its seconds, and the MB that it took at its peak."""
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM back
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start, memory("VmHWM") - before


# ---- Pictures ------------------------------------------------------------------------------------

PARAMETERS = {  # of each method, to choose from
    **dict.fromkeys([*notebooks.NAMES, "Model3, in one piece"], [""]),
    "non-local means": [0.04, 0.05, 0.06, 0.07, 0.08],
    "total variation": [0.06, 0.08, 0.1, 0.12, 0.14],
    "wavelets": [0.08, 0.09, 0.1, 0.11, 0.12],
    **({"BM3D": [NOISE_STD]} if importlib.util.find_spec("bm3d") else {}),
}


def method(name):
    """Return a method as a function of a noisy picture and a parameter."""
    if name == "BM3D":
        return importlib.import_module("bm3d").bm3d_rgb
    if name.startswith("Model"):
        common.WINDOW = 10**9 if name.endswith("in one piece") else common.WINDOW
        model = notebooks.published(name[:6])
        return lambda noisy, parameter: common.denoise(model, noisy)
    variables = {"NOISE_STD": NOISE_STD}
    exec(notebooks.code_with("Model3", "classical = {"), variables)
    return variables["classical"][name]


def noisy_photo(name, noise_std=NOISE_STD, grey=False):
    """Return a photograph, and with noise as a file holds it: both float32 in [0, 1]."""
    clean = common.to_float(getattr(skimage.data, name)())
    if grey:
        clean = clean.mean(axis=2)
    return clean, common.to_float(common.from_float(common.add_noise(clean, noise_std, seed=0)))


def quality(denoise, parameter, photo):
    clean, noisy = noisy_photo(photo)
    return common.psnr(clean, np.clip(denoise(noisy, parameter), 0, 1))


def measure_method(name):
    """Return a row of the first table: parameter, PSNR in dB, seconds a megapixel, and MB."""
    denoise, parameters = method(name), PARAMETERS[name]
    _, noisy = noisy_photo("rocket")
    _, megabytes = peak_of(denoise, noisy, parameters[0])
    best = max(parameters, key=lambda each: quality(denoise, each, "coffee"))
    seconds = [peak_of(denoise, noisy, best)[0] for _ in range(ROUNDS)]
    reached = [quality(denoise, best, photo) for photo in common.TEST_PHOTOS]
    return best, *reached, np.median(seconds) / noisy[..., 0].size * 1e6, megabytes


def compare_methods():
    print(f"PSNR in dB on two photographs of scikit-image with noise of {NOISE_STD}, 8 bits; time "
          "and memory on rocket (0.27 megapixels).\nThe parameter is that with the highest PSNR "
          "on a third photograph, coffee.\n")
    print("{:24}{:>10}{:>9}{:>9}{:>13}{:>13}".format(
        "", "parameter", *common.TEST_PHOTOS, "s/megapixel", "memory (MB)"))
    print("{:34}{:9.2f}{:9.2f}".format(
        "noisy", *(common.psnr(*noisy_photo(name)) for name in common.TEST_PHOTOS)))
    for name in PARAMETERS:
        print("{:24}{:>10}{:9.2f}{:9.2f}{:13.2f}{:13.0f}".format(
            name, *in_a_process(measure_method, name)), flush=True)


def measure_large():
    """Return the seconds and the MB that a picture of 24 megapixels takes."""
    image = np.random.default_rng(0).integers(0, 256, (4000, 6000, 3), np.uint8)
    return peak_of(common.denoise, notebooks.published("Model3"), image)


def compare_contrasts():
    """Print what denoise()'s relative_noise is worth, and the contrast of grey."""
    model = notebooks.published("Model3")
    print("\nModel3 on chelsea by the strength of the noise, PSNR in dB. Told: how strong.\n")
    print(f"{'':8}{'colour':^27}{'grey':^27}")
    print(f"{'noise':8}" + 2 * f"{'noisy':>9}{'denoised':>9}{'told':>9}")
    for noise_std in (0.02, 0.03, 0.05, 0.07, 0.1, 0.13, 0.15, 0.2, 0.3):
        line = f"{noise_std:<8}"
        for grey in (False, True):
            clean, noisy = noisy_photo("chelsea", noise_std, grey)
            told = common.denoise(model, noisy, noise_std / NOISE_STD)
            for image in (noisy, common.denoise(model, noisy), told):
                line += f"{common.psnr(clean, image):9.2f}"
        print(line)


# ---- Training ------------------------------------------------------------------------------------


class Stopwatch(keras.callbacks.Callback):
    """Halt the training after some steps, and know how fast they were."""

    def on_train_batch_end(self, batch, logs=None):
        if batch == WARM_UP:
            self.start = time.perf_counter()
        if batch == WARM_UP + STEPS:
            self.images_per_second = 32 * STEPS / (time.perf_counter() - self.start)
            raise common.Halt("Enough")


def random_images(number):
    return np.random.default_rng(number).integers(0, 256, (number, 32, 32, 3), np.uint8)


def train_ours(name, stopwatch):
    """Train as the notebook does, by its own cells."""
    common.STEPS_PER_CALL = 1  # on a GPU, too: the stopwatch counts them
    data = common.Data("random", random_images(TRAIN_IMAGES), random_images(TEST_IMAGES))
    cell = notebooks.code_with(name, "model.fit(").replace("callbacks=[", "callbacks=[stopwatch, ")
    with tempfile.TemporaryDirectory() as folder:
        exec(cell, {**notebooks.built(name, data, epochs=1, CHECKPOINTS=folder),
                    "stopwatch": stopwatch})


def train_plainly(name, stopwatch):
    """Train as the coursework is commonly solved: float64 arrays straight into fit()."""
    x_train = random_images(TRAIN_IMAGES) / 255.0
    x_test = random_images(TEST_IMAGES) / 255.0
    model = recipe.build(name, recipe.PLAIN)
    model.compile(optimizer="adam", loss="mse")
    model.fit(x_train, x_train, batch_size=32, epochs=1, validation_data=(x_test, x_test),
              verbose=0, callbacks=[stopwatch])


def measure_training(train, name):
    """Return images per second, and the peak of the memory in GB."""
    stopwatch = Stopwatch()
    with notebooks.quiet(), contextlib.suppress(common.Halt):
        train(name, stopwatch)
    return stopwatch.images_per_second, memory("VmHWM") / 1000


def compare_training():
    print(f"\n{common.describe_backend()}. {ROUNDS} rounds of {STEPS} steps of 32 images, "
          f"{TRAIN_IMAGES:,} images in memory;\nmedians, and ratios within a round; memory is the "
          "peak until then.\n")
    print(f"{'':8}{'images per second':^30}{'peak memory (GB)':^30}")
    print(f"{'':8}" + 2 * f"{'ours':>10}{'plain':>10}{'ratio':>10}")
    for name in notebooks.NAMES:
        found = np.array([[in_a_process(measure_training, train, name)
                           for train in (train_ours, train_plainly)] for _ in range(ROUNDS)])
        ours, plain = found[:, 0], found[:, 1]
        speed, peak = np.median([ours, plain, ours / plain], axis=1).T
        print("{:8}{:10.0f}{:10.0f}{:10.2f}{:10.2f}{:10.2f}{:10.2f}".format(name, *speed, *peak),
              flush=True)


if __name__ == "__main__":
    compare_methods()
    seconds, megabytes = in_a_process(measure_large)
    print(f"\nModel3 on 6000 × 4000 pixels: {seconds:.1f} s, {megabytes:.0f} MB above what the "
          "process held with the picture and the network.")
    compare_contrasts()
    compare_training()
