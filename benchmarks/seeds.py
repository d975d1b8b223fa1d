"""Train each model with three seeds and write weights/seeds.csv.

Usage: DENOISE_EPOCHS=10 PYTHONPATH=.:tests python benchmarks/seeds.py   (make seeds EPOCHS=10)
The networks, the recipe and all other settings are the notebooks'. Finished runs are found among
the checkpoints, those of the notebooks themselves (seed 0) included, and a killed one goes on.
"""

import contextlib
import io

import common
import notebooks
from notebooks import NAMES

SEEDS = (0, 1, 2)


def trained(name, seed, data, epochs):
    """Return the network of the notebook `name`, trained with `seed`."""
    with contextlib.redirect_stdout(io.StringIO()):  # the cells' prints: they name the seed 0
        variables = notebooks.built(name, data, epochs, SEED=seed)
        notebooks.train(variables)
    return variables["model"]


def table(reached, data, epochs):
    """Return the text of seeds.csv."""
    lines = [f"# PSNR over the whole set, in dB, on {len(data.test):,} test images of {data.name} "
             f"after {epochs} epochs on {len(data.train):,} training images",
             "model,seed,psnr"]
    lines += [f"{name},{seed},{value}" for (name, seed), value in reached.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    settings = notebooks.settings("Model1")
    epochs = notebooks.epochs("Model1")
    data = common.load_data()
    clean = common.to_float(data.test)
    noisy = common.add_noise(clean, settings["NOISE_STD"], settings["SEED"])  # for all
    reached = {}
    for seed in SEEDS:
        for name in NAMES:
            model = trained(name, seed, data, epochs)
            denoised = model.predict(noisy, batch_size=100, verbose=0)
            reached[name, seed] = common.psnr(clean, denoised)
            print(f"{name} with seed {seed}: {reached[name, seed]:.3f} dB", flush=True)
    with common.atomic(common.WEIGHTS / "seeds.csv") as temporary:
        temporary.write_text(table(dict(sorted(reached.items())), data, epochs), encoding="utf-8")
