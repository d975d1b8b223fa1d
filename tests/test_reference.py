"""The trained weights in weights/: they fit, they say what they are, and nothing else passes."""

import shutil
from pathlib import Path

import keras
import nbclient
import nbformat
import numpy as np
import pytest

import common
import notebooks
from notebooks import ROOT

pytestmark = pytest.mark.usefixtures("weights")


def test_reference_trains_nothing_and_is_not_trained_on(name, photographs, capsys):
    data = common.Data("photographs", photographs.train[:80], photographs.test[:8])
    variables = notebooks.built(name, data, 100, TRAINING="reference", CHECKPOINTS="checkpoints")
    run = notebooks.train(variables)
    assert run == common.read_run(name)
    common.require_trained(variables["model"], run)
    assert int(variables["model"].optimizer.iterations) == 0
    assert capsys.readouterr().out.rstrip().endswith(str(run))
    assert not Path("checkpoints").exists()
    variables["TRAINING"] = "resume"
    with pytest.raises(common.Halt, match="trained before: run all cells"):
        notebooks.train(variables)


def test_weights_of_other_noise_are_refused():
    with pytest.raises(common.Halt, match="come from NOISE_STD = 0.1, here it is 0.2"):
        common.load_reference(notebooks.network("Model1"), 0.2)


@pytest.mark.filterwarnings("ignore:Skipping nested container")
def test_weights_do_not_go_into_another_network():
    model = notebooks.network("Model2")
    without_skip = keras.Model(model.input, model.get_layer("conv5").output, name="Model2")
    with pytest.raises(common.Halt, match="belong to another network"):
        common.load_reference(without_skip, 0.1)
    with pytest.raises(common.Halt, match="built again"):
        common.require_trained(without_skip, common.read_run("Model2"))


@pytest.mark.parametrize("file, kept", [
    ("Model1.weights.h5", None), ("Model1.weights.h5", 200_000), ("Model1.json", None),
    ("Model1.json", -100)])
def test_missing_and_damaged_files_are_told_in_one_line(file, kept):
    path = Path("weights", file)
    content = path.read_bytes()
    path.unlink()
    if kept is not None:
        path.write_bytes(content[:kept])
    with pytest.raises(common.Halt, match='of Model1 in weights/ cannot be used: .*"resume"') as no:
        common.load_reference(notebooks.network("Model1"), 0.1)
    assert "\n" not in str(no.value)


def test_a_notebook_runs_to_its_end_on_the_reference_weights(monkeypatch):
    for name in ("common.py", "noisy.png", "Model3.ipynb"):
        shutil.copy(ROOT / name, name)
    notebooks.alter(".", "Model3", 'TRAINING = "resume"', 'TRAINING = "reference"')
    monkeypatch.setenv("DENOISE_QUICK", "1")
    monkeypatch.setenv("DENOISE_DATA", "photos")
    nbclient.NotebookClient(nbformat.read("Model3.ipynb", as_version=4), timeout=300).execute()
    ours, shipped = (common.open_picture(folder / "Model3.png")[0].astype(int)
                     for folder in (Path("build"), ROOT))
    assert np.abs(ours - shipped).max() <= 1  # versions and backends may round otherwise
