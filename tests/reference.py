"""Write weights/ModelX.weights.h5 and weights/ModelX.csv from the finished runs of the notebooks.

Usage: PYTHONPATH=. python tests/reference.py   (make notebooks ends with it)
Each network is built and trained by its notebook's own cells, which find the finished run among
the checkpoints. DENOISE_EPOCHS and DENOISE_DATA have to be what they were then.
"""

import json
import os
import pathlib

import keras

import common
import notebooks
from notebooks import NAMES


def history(run):
    """Return the text of ModelX.csv, which common.read_history() reads back."""
    header = {key: value for key, value in run.items() if key not in (*common.HISTORY, "curve")}
    lines = [f"# {key}: {json.dumps(value)}" for key, value in header.items()]
    lines.append(",".join(("epoch", *common.HISTORY)))
    for epoch, values in enumerate(zip(*(run[column] for column in common.HISTORY)), start=1):
        lines.append(",".join(map(str, (epoch, *values))))
    return "\n".join(lines) + "\n"


def finished_run(name, data):
    """Return the network of the notebook `name` as it was trained, and its run."""
    epochs = common.planned_epochs(notebooks.settings(name)["EPOCHS"])
    variables = notebooks.built(name, data, epochs)
    variables["model"].fit = not_finished
    variables["TRAINING"] = "resume"
    exec(notebooks.code_with(name, "common.train("), variables)
    return variables["model"], variables["run"]


def not_finished(*args, **kwargs):
    raise SystemExit("This run is not finished: run make notebooks first, with the same EPOCHS.")


def save(model, run, folder):
    """Write the weights and the history of a finished run into `folder`."""
    picture = common.denoise(model, common.noisy_picture())
    run = {**run, "picture_psnr": common.psnr(common.clean_picture(), picture)}
    # A network without an optimizer: the file would hold Adam's state too.
    keras.Model(model.input, model.output).save_weights(folder / f"{model.name}.weights.h5")
    (folder / f"{model.name}.csv").write_text(history(run), encoding="utf-8")


if __name__ == "__main__":
    folder = pathlib.Path("build/weights")
    folder.mkdir(parents=True, exist_ok=True)
    data = common.load_data()
    for name in NAMES:
        save(*finished_run(name, data), folder)
    common.REFERENCE.mkdir(exist_ok=True)
    for path in folder.iterdir():  # only now that all of them are there
        os.replace(path, common.REFERENCE / path.name)
