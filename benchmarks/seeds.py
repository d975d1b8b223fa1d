"""Train each model with three seeds and write weights/seeds.csv.

Usage: DENOISE_EPOCHS=10 PYTHONPATH=.:tests python benchmarks/seeds.py   (make seeds EPOCHS=10)
The networks, the recipe and all other settings are the notebooks'. Finished runs are found among
the checkpoints, those of the notebooks themselves (seed 0) included, and a killed one goes on.
"""

import itertools

import common
import notebooks


def reached(name, seed, data, epochs):
    """Return the PSNR (dB) of the notebook's network, trained with `seed`, on the test images."""
    with notebooks.quiet():  # the cells' prints: they name the seed 0
        variables = notebooks.built(name, data, epochs, SEED=seed)
        notebooks.train(variables)
    clean = variables["clean_test"]
    noisy = common.add_noise(clean, variables["NOISE_STD"], seed=0)  # the same for all
    return common.psnr(clean, variables["model"].predict(noisy, batch_size=100, verbose=0))


if __name__ == "__main__":
    epochs, data = notebooks.epochs("Model1"), common.load_data()
    lines = [f"# PSNR over the whole set, in dB, on {len(data.test):,} test images of {data.name} "
             f"after {epochs} epochs on {len(data.train):,} training images", "model,seed,psnr"]
    for name, seed in itertools.product(notebooks.NAMES, (0, 1, 2)):
        lines.append(f"{name},{seed},{reached(name, seed, data, epochs)}")
        print(lines[-1], flush=True)
    with common.atomic(common.WEIGHTS / "seeds.csv") as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
