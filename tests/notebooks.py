"""Read the three notebooks, their cells and the network that each one builds, or alter a copy."""

import contextlib
import io
import pathlib
import re

import nbformat
import numpy as np
from PIL import Image

ROOT = pathlib.Path(__file__).parent.parent
NAMES = ("Model1", "Model2", "Model3")
CHECKED = "nbval-check-output"
SKIP = '\nx = layers.Add(name="skip")([noisy_image, x])'  # what exercises and faults take out


def cells(name, folder=ROOT):
    """Return the cells of the notebook `name`."""
    return nbformat.read(pathlib.Path(folder) / f"{name}.ipynb", as_version=4).cells


def code_cells(name, folder=ROOT):
    return [cell for cell in cells(name, folder) if cell.cell_type == "code"]


def tags(cell):
    return cell.metadata.get("tags", [])


def printed(cell):
    """Return what the `cell` printed: its stdout, and the text of what it displayed."""
    parts = [output.get("text") or output.get("data", {}).get("text/plain", "")
             for output in cell.outputs]
    return "\n".join(parts)


def code_with(name, text, folder=ROOT):
    """Return the source of the one code cell of `name` that contains `text`."""
    found = [cell.source for cell in code_cells(name, folder) if text in cell.source]
    assert len(found) == 1, f"{len(found)} cells of {name} contain {text!r}"
    return found[0]


def alter(folder, name, old, new):
    """Replace `old` by `new` in one code cell of the notebook `name` in `folder`."""
    path = pathlib.Path(folder) / f"{name}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    found = [cell for cell in notebook.cells if cell.cell_type == "code" and old in cell.source]
    assert len(found) == 1, f"{old!r} stands in {len(found)} cells of {name}"
    found[0].source = found[0].source.replace(old, new)
    nbformat.write(notebook, path)


def settings(name, folder=ROOT):
    """Execute the settings cell of the notebook `name`. Returns its variables."""
    variables = {}
    exec(code_with(name, 'NAME = "', folder), variables)
    return variables


def epochs(name):
    """Return and check the number of epochs that the notebook `name` would train now."""
    import common

    names = ("NAME", "EPOCHS", "BATCH_SIZE", "NOISE_STD", "SEED")
    return common.set_up(*map(settings(name).get, names))


def built(name, data, epochs, folder=ROOT, **changed):
    """Execute the cells of the notebook `name` that build and compile. Returns its variables.

    Settings may be `changed`.
    """
    import keras

    import common

    variables = {"keras": keras, "layers": keras.layers, "np": np, "Image": Image,
                 "common": common, "data": data, "noisy": common.noisy_picture(),
                 **settings(name, folder), "EPOCHS": epochs, **changed}
    variables["CHECKPOINTS"] = common.output_path(variables["CHECKPOINTS"])
    variables["clean_test"] = common.to_float(data.test)
    variables["noisy_test"] = common.add_noise(
        variables["clean_test"], variables["NOISE_STD"], variables["SEED"])
    for part in ("keras.Input(", "common.Batches(", "model.compile("):
        exec(code_with(name, part, folder), variables)
    return variables


def few_images():
    import common

    images = np.zeros((64, 32, 32, 3), np.uint8)
    return common.Data("64 images", images, images)


def network(name):
    """Build and compile the network of the notebook `name`, by its own cells, for one epoch."""
    return built(name, few_images(), epochs=1)["model"]


def quiet():
    """Return a context in which the notebooks' cells print nothing."""
    return contextlib.redirect_stdout(io.StringIO())


def published(name):
    """Return the network of the notebook `name` with its weights in weights/."""
    import keras

    with quiet():
        model = network(name)
    keras.Model(model.input, model.output).load_weights(ROOT / "weights" / f"{name}.weights.h5")
    return model


def train(variables):
    """Execute the training cell with the `variables` of built(). Returns the Run."""
    exec(code_with(variables["NAME"], "model.fit("), variables)
    return variables["run"]


def results(name, folder=ROOT):
    """Return what the cell tagged `results` printed: its heading, and {row: (noisy, denoised)}."""
    [cell] = [cell for cell in code_cells(name, folder) if "results" in tags(cell)]
    heading, *lines = printed(cell).strip().splitlines()
    rows = {}
    for line in lines:
        row, before, after = re.fullmatch(rf"(.*?) +noisy ([\d.]+) +{name} ([\d.]+)", line).groups()
        rows[row] = (before, after)
    return heading, rows
