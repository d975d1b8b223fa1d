"""Write weights/ModelX.weights.h5 and weights/ModelX.json from the finished runs of the notebooks.

Usage: PYTHONPATH=.:tests python benchmarks/reference.py   (make notebooks ends with it)
Each network is built and trained by its notebook's own cells, which find the finished run among
the checkpoints. DENOISE_EPOCHS and DENOISE_DATA have to be what they were then.
"""

import json
import os
import pathlib

import common
import notebooks
from common import keras  # without the chatter of its backend
from notebooks import NAMES


def save(model, run, noisy, clean, folder):
    """Write the weights and the history of a finished run into `folder`, and how good it is."""
    picture = common.denoise(model, common.noisy_picture())
    denoised = model.predict(noisy, batch_size=100, verbose=0)
    run = run._replace(picture_psnr=common.psnr(common.clean_picture(), picture),
                       test_psnr=common.psnr(clean, denoised), key="weights")
    # A network without an optimizer: the file would hold its state too.
    keras.Model(model.input, model.output).save_weights(folder / f"{model.name}.weights.h5")
    (folder / f"{model.name}.json").write_text(json.dumps(run._asdict()) + "\n", encoding="utf-8")


if __name__ == "__main__":
    folder = pathlib.Path("build/weights")
    folder.mkdir(parents=True, exist_ok=True)
    data = common.load_data()
    for name in NAMES:
        variables = notebooks.built(name, data, notebooks.epochs(name))
        run = notebooks.train(variables)
        save(variables["model"], run, variables["noisy_test"], variables["clean_test"], folder)
    common.WEIGHTS.mkdir(exist_ok=True)
    for path in folder.iterdir():  # only now that all of them are there
        os.replace(path, common.WEIGHTS / path.name)
