"""Print what averaging gains: each published network over eight turns and flips, and all three.

Usage: PYTHONPATH=.:tests python benchmarks/ceiling.py   (make ceiling)
PSNR over all test images of the data that DENOISE_DATA names, noise of 0.1 unclipped.
"""

import itertools

import numpy as np

import common
import notebooks


def over_turns(model, images):
    """Return the mean of what the network makes of the `images`, turned and flipped, as float32."""
    total = np.zeros_like(images)
    for turns, flip in itertools.product(range(4), (1, -1)):
        turned = np.rot90(images, turns, axes=(1, 2))[:, :, ::flip]
        denoised = model.predict(turned, batch_size=100, verbose=0)
        total += np.rot90(denoised[:, :, ::flip], -turns, axes=(1, 2))
    return total / 8


if __name__ == "__main__":
    data = common.load_data()
    clean = common.to_float(data.test)
    noisy = common.add_noise(clean, 0.1, 0)
    print(f"{len(clean):,} test images of {data.name}; PSNR in dB, alone and over the turns")
    averaged = 0
    for name in notebooks.NAMES:
        model = notebooks.published(name)
        alone, turned = model.predict(noisy, batch_size=100, verbose=0), over_turns(model, noisy)
        averaged = averaged + turned / 3
        print(f"{name}: {common.psnr(clean, alone):.3f} {common.psnr(clean, turned):.3f}",
              flush=True)
    print(f"all three: {common.psnr(clean, averaged):.3f}")
