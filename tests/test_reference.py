"""The trained weights in weights/: they fit, they say what they are, and nothing else passes."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import nbclient
import nbformat
import numpy as np
import pytest

import common
import notebooks
from notebooks import ROOT, printed

pytestmark = pytest.mark.usefixtures("weights")


def load(name, **changes):
    """Load the reference into the notebook's network, for its settings but for the `changes`."""
    model = notebooks.network(name)
    return model, common.load_reference(model, common.read_run(name)._replace(**changes))


def test_shipped_weights_leave_no_tint(name):
    """Within three times the noise of black and white, clipping has moved its mean: left out."""
    clean, noisy = (common.to_float(picture())
                    for picture in (common.clean_picture, common.noisy_picture))
    denoised = common.denoise(load(name)[0], noisy)
    inside = np.abs(denoised - 0.5) < 0.2
    cast = 255 * np.mean(denoised - clean, axis=(0, 1), where=inside, dtype=np.float64)
    assert np.abs(cast).max() <= 0.25


def test_shipped_files_are_small_and_complete(name):
    assert (ROOT / "weights" / f"{name}.weights.h5").stat().st_size < 600_000
    run = common.read_run(name)
    settings = notebooks.settings(name)
    assert run[:3] == (name, "CIFAR-10", 49_927)
    assert (run.batch_size, run.noise_std, run.seed) == tuple(
        settings[setting] for setting in ("BATCH_SIZE", "NOISE_STD", "SEED"))
    assert len(run.loss) == len(run.psnr) == len(run.seconds) == run.epochs >= 3
    assert run.curve[-1][0] == run.epochs
    assert run.backend.startswith("Keras ") and re.fullmatch(r"\d{4}-\d\d-\d\d", run.date)


def test_reference_trains_nothing(name, photographs, capsys):
    data = common.Data("photographs", photographs.train[:80], photographs.test[:8])
    variables = notebooks.built(name, data, 100, TRAINING="reference", CHECKPOINTS="checkpoints")
    run = notebooks.train(variables)
    assert run == common.read_run(name)
    assert int(variables["model"].optimizer.iterations) == 0
    assert capsys.readouterr().out.rstrip().endswith(str(run))
    assert not Path("checkpoints").exists()


@pytest.mark.parametrize("setting, value", [("batch_size", 64), ("noise_std", 0.2), ("seed", 1)])
def test_weights_of_another_run_are_refused(setting, value):
    with pytest.raises(common.Halt, match=f"(?i){setting}.* here it is {value}"):
        load("Model1", **{setting: value})


def test_loaded_or_refused_weights_are_not_trained_on(photographs):
    path = Path("weights", "Model1.json")
    path.write_text(path.read_text().replace('"picture_psnr": 3', '"picture_psnr": 2'))
    variables = notebooks.built("Model1", photographs, 1, TRAINING="reference", CHECKPOINTS="c")
    with pytest.raises(common.Halt, match="belongs to another network"):
        notebooks.train(variables)
    variables["TRAINING"] = "resume"
    with pytest.raises(common.Halt, match="run the cell that builds it"):
        notebooks.train(variables)


def without_skip():
    model = notebooks.network("Model2")
    return keras.Model(model.input, model.get_layer("conv5").output, name="Model2")


def four_layers_deep():
    variables = {"keras": keras, "layers": keras.layers, "np": np, **notebooks.settings("Model2")}
    exec(notebooks.code_with("Model2", "DEPTH = 5").replace("DEPTH = 5", "DEPTH = 4"), variables)
    return variables["model"]


@pytest.mark.filterwarnings("ignore:Skipping nested container")
@pytest.mark.parametrize("network, message", [(without_skip, "belongs to another network"),
                                              (four_layers_deep, "does not fit this network")])
def test_weights_do_not_go_into_another_network(network, message):
    with pytest.raises(common.Halt, match=message):
        common.load_reference(network(), common.read_run("Model2"))


@pytest.mark.parametrize("file, kept, message", [
    ("Model1.weights.h5", None, "no weights/Model1.weights.h5"),
    ("Model1.weights.h5", 200_000, "is damaged"), ("Model1.weights.h5", 0, "is damaged"),
    ("Model1.json", None, "no weights/Model1.json"), ("Model1.json", -100, "is damaged")])
def test_missing_and_damaged_files_are_named(file, kept, message):
    run, path = common.read_run("Model1"), Path("weights", file)
    content = path.read_bytes()
    path.unlink()
    if kept is not None:
        path.write_bytes(content[:kept])
    with pytest.raises(common.Halt, match=message):
        common.load_reference(notebooks.network("Model1"), run)


def test_a_history_cut_short_is_damaged():
    run = common.read_run("Model1")
    Path("weights", "Model1.json").write_text(json.dumps(run._asdict() | {"psnr": run.psnr[:40]}))
    with pytest.raises(common.Halt, match="Model1.json is damaged .*40 of 100 epochs"):
        common.read_run("Model1")


def test_a_notebook_runs_to_its_end_on_the_reference_weights(monkeypatch):
    for name in ("common.py", "noisy.png"):
        shutil.copy(ROOT / name, name)
    monkeypatch.setenv("DENOISE_QUICK", "1")
    monkeypatch.setenv("DENOISE_DATA", "photos")
    notebook = nbformat.read(ROOT / "Model3.ipynb", as_version=4)
    [settings] = [cell for cell in notebook.cells if 'TRAINING = "resume"' in cell.source]
    settings.source = settings.source.replace('TRAINING = "resume"', 'TRAINING = "reference"')
    nbclient.NotebookClient(notebook, timeout=300).execute()
    run = str(common.read_run("Model3"))
    assert any(run in printed(cell) for cell in notebook.cells if "outputs" in cell)
    ours, shipped = (common.open_picture(folder / "Model3.png").astype(int)
                     for folder in (Path("build"), ROOT))
    assert np.abs(ours - shipped).max() <= 1  # versions and backends may round otherwise
    assert not Path("build/checkpoints").exists()


def test_missing_files_are_fetched(monkeypatch, site):
    shutil.move("weights", site.folder)
    monkeypatch.setattr(common, "FILES_URL", site.address)
    assert load("Model1")[1].model == "Model1"
    assert sorted(path.name for path in Path("weights").iterdir()) == ["Model1.json",
                                                                       "Model1.weights.h5"]


@pytest.mark.parametrize("content, message", [
    (None, "Model1.json cannot be fetched: .*404"),
    (b"<!DOCTYPE html>", "Model1.json is damaged"), (b'{"message": 1}', "Model1.json is damaged")])
def test_what_cannot_be_fetched_leaves_nothing(monkeypatch, site, content, message):
    shutil.rmtree("weights")
    monkeypatch.setattr(common, "FILES_URL", site.address)
    if content:
        (site.folder / "weights").mkdir()
        (site.folder / "weights" / "Model1.json").write_bytes(content)
    with pytest.raises(common.Halt, match=message):
        common.read_run("Model1")
    assert not list(Path("weights").iterdir())


def test_weights_that_do_not_fit_are_not_kept(monkeypatch, site):
    shutil.copytree("weights", site.folder / "weights")
    shutil.copy(site.folder / "weights" / "Model1.weights.h5",
                site.folder / "weights" / "Model2.weights.h5")
    Path("weights", "Model2.weights.h5").unlink()
    monkeypatch.setattr(common, "FILES_URL", site.address)
    with pytest.raises(common.Halt, match="Model2.weights.h5 .*belongs to another network"):
        load("Model2")
    assert not Path("weights", "Model2.weights.h5").exists()


OTHER = "jax" if keras.backend.backend() == "tensorflow" else "tensorflow"
DENOISE = """
import sys
sys.path[:0] = sys.argv[1:]
import common, notebooks, numpy
model = notebooks.network("Model3")
common.load_reference(model, common.read_run("Model3"))
numpy.save("other.npy", common.denoise(model, common.noisy_picture()))
"""


@pytest.mark.skipif(not importlib.util.find_spec(OTHER), reason=f"{OTHER} is not installed")
def test_another_backend_gives_the_same_picture():
    model, _ = load("Model3")
    ours = common.denoise(model, common.noisy_picture())
    subprocess.run([sys.executable, "-c", DENOISE, str(ROOT), str(ROOT / "tests")], check=True,
                   env={**os.environ, "KERAS_BACKEND": OTHER})
    theirs = np.load("other.npy")
    assert np.abs(ours.astype(int) - theirs).max() <= 1
