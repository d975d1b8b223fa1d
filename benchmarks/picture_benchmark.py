"""Measure denoising of pictures on this machine: ours beside classical methods, whole beside cut.

Usage: PYTHONPATH=.:tests python benchmarks/picture_benchmark.py [--rounds 3]   (on Linux)
The networks are those in weights/. Each row of the first table is a process of its own, and BM3D's
is left out unless bm3d is installed (pip install bm3d).
"""

import argparse
import contextlib
import importlib.util
import io
import statistics
import time
from pathlib import Path

import numpy as np
import skimage.data

import common
import notebooks
from benchmark import in_a_process, memory, product_rate
from common import keras  # without the chatter of its backend

NOISE_STD = 0.1
TFLOP_PER_MEGAPIXEL = 0.228  # of one forward pass
LARGE = (4000, 6000, 3)


def noisy_photo(name, noise_std=NOISE_STD, grey=False):
    """Return a photograph, and with noise as a file holds it: both float32 in [0, 1]."""
    clean = common.to_float(getattr(skimage.data, name)())
    if grey:
        clean = clean.mean(axis=2)
    return clean, common.to_float(common.from_float(common.add_noise(clean, noise_std, seed=0)))


# ---- The methods, each with the values that its parameter is chosen from -------------------------


def network(name):
    with contextlib.redirect_stdout(io.StringIO()):
        model = notebooks.network(name)
    weights = notebooks.ROOT / "weights" / f"{name}.weights.h5"
    keras.Model(model.input, model.output).load_weights(weights)
    return model


def ours(name, window):
    def prepare():
        model = network(name)
        common.WINDOW = window
        return lambda noisy, parameter: common.denoise(model, noisy)
    return prepare


def classical(name):
    """Return how to get a method of Model3's own cell."""
    variables = {"NOISE_STD": NOISE_STD}
    exec(notebooks.code_with("Model3", "classical = {"), variables)
    return lambda: variables["classical"][name]


def bm3d():
    from bm3d import bm3d_rgb

    return bm3d_rgb


METHODS = {
    **{name: (ours(name, common.WINDOW), [None]) for name in notebooks.NAMES},
    "Model3, in one piece": (ours("Model3", 10**9), [None]),
    "non-local means": (classical("non-local means"), [0.04, 0.05, 0.06, 0.07, 0.08]),
    "total variation": (classical("total variation"), [0.06, 0.08, 0.1, 0.12, 0.14]),
    "wavelets": (classical("wavelets"), [0.08, 0.09, 0.1, 0.11, 0.12]),
    "BM3D": (bm3d, [NOISE_STD]),
}


# ---- Measurements --------------------------------------------------------------------------------


def peak_of(function, *arguments):
    """Call `function`. Returns its result, seconds, and MB that it took at its peak."""
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM back
    start = time.perf_counter()
    result = function(*arguments)
    return result, time.perf_counter() - start, memory("VmHWM") - before


def quality(denoise, parameter, photo):
    clean, noisy = noisy_photo(photo)
    return common.psnr(clean, np.clip(denoise(noisy, parameter), 0, 1).astype(np.float32))


def measure(method, rounds):
    """Return a row of the first table: parameter, seconds a megapixel, MB, and PSNR in dB."""
    prepare, parameters = METHODS[method]
    denoise = prepare()
    _, noisy = noisy_photo("rocket")
    megapixels = noisy[..., 0].size / 1e6
    _, _, megabytes = peak_of(denoise, noisy, parameters[0])
    best = parameters[0] if len(parameters) == 1 else max(
        parameters, key=lambda each: quality(denoise, each, "coffee"))
    seconds = [peak_of(denoise, noisy, best)[1] for _ in range(rounds)]
    reached = [quality(denoise, best, photo) for photo in common.TEST_PHOTOS]
    return best, statistics.median(seconds) / megapixels, megabytes, reached


def compare_methods(rounds):
    print(f"PSNR in dB on two photographs of scikit-image with noise of {NOISE_STD}, 8 bits; time "
          "and memory on rocket (0.27 megapixels).\nThe parameter is that with the highest PSNR "
          "on a third photograph, coffee.\n")
    print(f"{'':24}{'parameter':>10}" + "".join(f"{name:>9}" for name in common.TEST_PHOTOS)
          + f"{'s/megapixel':>13}{'memory (MB)':>13}")
    noisy = [common.psnr(*noisy_photo(name)) for name in common.TEST_PHOTOS]
    print(f"{'noisy':34}" + "".join(f"{value:9.2f}" for value in noisy))
    took = {}
    for method in METHODS:
        if method == "BM3D" and not importlib.util.find_spec("bm3d"):
            continue
        parameter, took[method], megabytes, reached = in_a_process(measure, method, rounds)
        print(f"{method:24}{parameter or '':>10}" + "".join(f"{value:9.2f}" for value in reached)
              + f"{took[method]:13.2f}{megabytes:13.0f}", flush=True)
    floor = 1e12 * TFLOP_PER_MEGAPIXEL / product_rate()
    print(f"\n{TFLOP_PER_MEGAPIXEL} TFLOP at the rate of NumPy's matrix product: {floor:.2f} s a "
          f"megapixel. Model3 takes {took['Model3'] / floor:.2f} times as long.")
    if "BM3D" in took:
        print(f"Model3 is {took['BM3D'] / took['Model3']:.0f} times as fast as BM3D.")


def measure_large():
    """Return the seconds and the MB that a picture of 24 megapixels takes."""
    model = network("Model3")
    image = np.random.default_rng(0).integers(0, 256, LARGE, np.uint8)
    with contextlib.redirect_stdout(io.StringIO()):
        return peak_of(common.denoise, model, image)[1:]


def compare_contrasts():
    """Print what denoise()'s relative_noise is worth, and the contrast of grey."""
    model = network("Model3")
    print("\nModel3 on chelsea by the strength of the noise, PSNR in dB. Told: how strong.\n"
          "Copied: grey as if it were colour, not at 1/√3 of the contrast.\n")
    print(f"{'':8}{'colour':^27}{'grey':^36}")
    print(f"{'noise':8}" + "".join(f"{title:>9}" for title in (
        "noisy", "denoised", "told", "noisy", "copied", "denoised", "told")))
    for noise_std in (0.02, 0.03, 0.05, 0.07, 0.1, 0.13, 0.15, 0.2, 0.3):
        clean, noisy = noisy_photo("chelsea", noise_std)
        told = noise_std / NOISE_STD
        found = [noisy, common.denoise(model, noisy), common.denoise(model, noisy, told)]
        values = [common.psnr(clean, image) for image in found]
        clean, noisy = noisy_photo("chelsea", noise_std, grey=True)
        copied = model.predict(np.dstack([noisy] * 3)[np.newaxis], verbose=0)[0]
        copied = copied.clip(0, 1).mean(axis=2)
        found = [noisy, copied, common.denoise(model, noisy), common.denoise(model, noisy, told)]
        values += [common.psnr(clean, image) for image in found]
        print(f"{noise_std:<8}" + "".join(f"{value:9.2f}" for value in values))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    compare_methods(rounds)
    seconds, megabytes = in_a_process(measure_large)
    print(f"\nModel3 on 6000 × 4000 pixels: {seconds:.1f} s, {megabytes:.0f} MB above what the "
          "process held with the picture and the network.")
    compare_contrasts()
