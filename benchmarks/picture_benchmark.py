"""Measure denoising of pictures on this machine: ours beside classical methods, whole beside cut.

Usage: PYTHONPATH=.:tests python benchmarks/picture_benchmark.py   (make benchmark; on Linux)
The networks are those in weights/. Each row of the first table is a process of its own, and BM3D's
is left out unless bm3d is installed (pip install bm3d).
"""

import importlib.util
import statistics
import time
from pathlib import Path

import numpy as np
import skimage.data

import common
import notebooks
from benchmark import ROUNDS, in_a_process, memory

NOISE_STD = 0.1


def noisy_photo(name, noise_std=NOISE_STD, grey=False):
    """Return a photograph, and with noise as a file holds it: both float32 in [0, 1]."""
    clean = common.to_float(getattr(skimage.data, name)())
    if grey:
        clean = clean.mean(axis=2)
    return clean, common.to_float(common.from_float(common.add_noise(clean, noise_std, seed=0)))


# ---- The methods, each with the values that its parameter is chosen from -------------------------


def ours(name, window):
    def prepare():
        common.WINDOW = window
        model = notebooks.published(name)
        return lambda noisy, parameter: common.denoise(model, noisy)
    return prepare


def classical(name):
    """Return how to get a method of Model3's own cell."""
    variables = {"NOISE_STD": NOISE_STD}
    exec(notebooks.code_with("Model3", "classical = {"), variables)
    return lambda: variables["classical"][name]


METHODS = {
    **{name: (ours(name, common.WINDOW), [None]) for name in notebooks.NAMES},
    "Model3, in one piece": (ours("Model3", 10**9), [None]),
    "non-local means": (classical("non-local means"), [0.04, 0.05, 0.06, 0.07, 0.08]),
    "total variation": (classical("total variation"), [0.06, 0.08, 0.1, 0.12, 0.14]),
    "wavelets": (classical("wavelets"), [0.08, 0.09, 0.1, 0.11, 0.12]),
}
if importlib.util.find_spec("bm3d"):
    METHODS["BM3D"] = (lambda: importlib.import_module("bm3d").bm3d_rgb, [NOISE_STD])


# ---- Measurements --------------------------------------------------------------------------------


def peak_of(function, *arguments):
    """Call `function`. Returns its seconds, and the MB that it took at its peak."""
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM back
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start, memory("VmHWM") - before


def quality(denoise, parameter, photo):
    clean, noisy = noisy_photo(photo)
    return common.psnr(clean, np.clip(denoise(noisy, parameter), 0, 1).astype(np.float32))


def measure(method):
    """Return a row of the first table: parameter, PSNR in dB, seconds a megapixel, and MB."""
    prepare, parameters = METHODS[method]
    denoise = prepare()
    _, noisy = noisy_photo("rocket")
    _, megabytes = peak_of(denoise, noisy, parameters[0])
    best = max(parameters, key=lambda each: quality(denoise, each, "coffee"))
    seconds = [peak_of(denoise, noisy, best)[0] for _ in range(ROUNDS)]
    reached = [quality(denoise, best, photo) for photo in common.TEST_PHOTOS]
    return best or "", *reached, statistics.median(seconds) / noisy[..., 0].size * 1e6, megabytes


def compare_methods():
    print(f"PSNR in dB on two photographs of scikit-image with noise of {NOISE_STD}, 8 bits; time "
          "and memory on rocket (0.27 megapixels).\nThe parameter is that with the highest PSNR "
          "on a third photograph, coffee.\n")
    print(f"{'':24}{'parameter':>10}" + "".join(f"{name:>9}" for name in common.TEST_PHOTOS)
          + f"{'s/megapixel':>13}{'memory (MB)':>13}")
    noisy = [common.psnr(*noisy_photo(name)) for name in common.TEST_PHOTOS]
    print(f"{'noisy':34}" + "".join(f"{value:9.2f}" for value in noisy))
    for method in METHODS:
        print("{:24}{:>10}{:9.2f}{:9.2f}{:13.2f}{:13.0f}".format(
            method, *in_a_process(measure, method)), flush=True)


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


if __name__ == "__main__":
    compare_methods()
    seconds, megabytes = in_a_process(measure_large)
    print(f"\nModel3 on 6000 × 4000 pixels: {seconds:.1f} s, {megabytes:.0f} MB above what the "
          "process held with the picture and the network.")
    compare_contrasts()
