"""Read the three notebooks: their cells, by tag, and the network that each one builds."""

import pathlib
import re

import nbformat

ROOT = pathlib.Path(__file__).parent.parent
NAMES = ("Model1", "Model2", "Model3")
CHECKED = "nbval-check-output"


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


def code_with(name, text):
    """Return the source of the one code cell of `name` that contains `text`."""
    found = [cell.source for cell in code_cells(name) if text in cell.source]
    assert len(found) == 1, f"{len(found)} cells of {name} contain {text!r}"
    return found[0]


def settings(name):
    """Execute the settings cell of the notebook `name`. Returns its variables."""
    variables = {}
    exec(code_with(name, "EPOCHS = 100"), variables)
    return variables


def built(name, data, epochs, **changed):
    """Execute the cells of the notebook `name` that build and compile. Returns its variables.

    Settings may be `changed`.
    """
    import keras

    import common

    variables = {"keras": keras, "layers": keras.layers, "common": common, "data": data,
                 **settings(name), "EPOCHS": epochs, **changed}
    exec(code_with(name, "keras.Model("), variables)
    exec(code_with(name, "model.compile("), variables)
    return variables


def network(name):
    """Build and compile the network of the notebook `name`, by its own cells, for one epoch."""
    import common

    return built(name, common.Data("64 images", range(64), range(0)), epochs=1)["model"]


def results(name, folder=ROOT):
    """Return what the cell tagged `results` printed: its heading, and {row: (noisy, denoised)}."""
    [cell] = [cell for cell in code_cells(name, folder) if "results" in tags(cell)]
    heading, *lines = printed(cell).strip().splitlines()
    rows = {}
    for line in lines:
        row, before, after = re.fullmatch(rf"(.*?) +noisy ([\d.]+) +{name} ([\d.]+)", line).groups()
        rows[row] = (before, after)
    return heading, rows
