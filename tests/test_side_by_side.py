"""Step 9 of the notebooks: other noise, other methods, other models; and their exercises."""

import json
import os
import re
import shutil

import keras
import matplotlib.pyplot as plt
import numpy as np
import pytest
import skimage.transform
import skimage.util
from matplotlib.colors import to_hex

import common
import exercises
import notebooks
from notebooks import NAMES, ROOT, code_with

RUN = common.Run("Model1", "CIFAR-10", 640, 64, 2, 32, 0.1, 0, 20.0, "2026-11-25", "Keras",
                 [0.02, 0.01], [26.0, 27.0], [1.0, 1.0], [[1, 0.02], [2, 0.01]])


@pytest.fixture
def few(photographs):
    return common.to_float(photographs.test[:200])


def keep(number, **changes):
    """Write a checkpoint of a run that differs from RUN; the higher the number, the newer."""
    run = RUN._replace(**changes)
    path = f"checkpoints/{run.model}-{number:016x}.00002.npz"
    os.makedirs("checkpoints", exist_ok=True)
    np.savez(path, run=json.dumps(run._asdict()))
    os.utime(path, (number, number))
    return path


def origins(run=RUN):
    return {name: (one.psnr[-1], origin)
            for name, (one, origin) in common.side_by_side(run, "checkpoints").items()}


def test_finished_runs_with_the_same_settings_stand_side_by_side():
    keep(1, model="Model2", psnr=[26.0, 28.0])
    keep(2, model="Model3", psnr=[26.0, 29.0])
    assert origins() == {"Model1": (27.0, "this notebook"), "Model2": (28.0, "checkpoints"),
                         "Model3": (29.0, "checkpoints")}


def test_the_newest_of_several_finished_runs_is_taken():
    keep(3, model="Model2", psnr=[26.0, 28.3])
    keep(2, model="Model2", psnr=[26.0, 28.2])
    assert origins()["Model2"] == (28.3, "checkpoints")


@pytest.mark.parametrize("changes", [
    {"epochs": 3}, {"seed": 1}, {"noise_std": 0.2}, {"batch_size": 64}, {"data": "photographs"},
    {"train_images": 641}, {"model": "Model2-dilated"}, {"loss": [0.02], "psnr": [26.0]}])
def test_other_and_unfinished_runs_do_not_stand_beside_it(changes):
    keep(1, **{"model": "Model2", **changes})
    assert list(origins()) == ["Model1"]


def test_damaged_checkpoints_are_passed_over():
    keep(1, model="Model2", psnr=[26.0, 28.0])
    with open(keep(2, model="Model2"), "wb") as file:
        file.write(b"no zip file")
    assert origins()["Model2"] == (28.0, "checkpoints")


def test_models_that_were_not_run_come_from_the_weights():
    shutil.copytree(ROOT / "weights", "weights")
    reference = common.read_run("Model3").psnr[-1]
    assert origins()["Model3"] == (reference, "weights")
    assert list(origins(RUN._replace(noise_std=0.2))) == ["Model1"]
    keep(1, model="Model3", psnr=[26.0, 29.0])
    assert origins()["Model3"] == (29.0, "checkpoints")


def test_shipped_seeds_are_three_runs_a_model():
    shutil.copytree(ROOT / "weights", "weights")
    title, seeds = common.read_seeds()
    assert re.search(r"on [\d,]+ test images of CIFAR-10 after \d+ epochs on [\d,]+ train", title)
    assert list(seeds) == list(NAMES) and all(len(set(values)) == 3 for values in seeds.values())


def test_seed_0_is_the_notebooks_run_if_it_has_as_many_epochs(name):
    shutil.copytree(ROOT / "weights", "weights")
    title, seeds = common.read_seeds()
    run = common.read_run(name)
    _, rows = notebooks.results(name)
    [(row, (_, reached))] = [item for item in rows.items() if "test images" in item[0]]
    if f"on {row} after {run.epochs} epochs on {run.train_images:,} training" in title:
        assert f"{seeds[name][0]:.2f}" == reached


def test_without_the_seeds_the_curves_stand_alone():
    title, seeds = common.read_seeds()
    assert title.startswith("There is no seeds.csv in weights/") and seeds == {}
    common.plot_side_by_side({"Model1": (RUN, "this notebook")}, seeds, title)
    assert [axes.get_visible() for axes in plt.gcf().axes] == [True, False]


def test_curves_and_seeds_have_the_colour_of_their_model():
    runs = {name: (RUN._replace(psnr=[26.0, 27.0 + i]), "") for i, name in enumerate(NAMES)}
    seeds = {name: [27.0 + i, 27.1 + i] for i, name in enumerate(NAMES)}
    common.plot_side_by_side(runs, seeds, "title")
    curves, dots = plt.gcf().axes
    for i, name in enumerate(NAMES):
        assert curves.lines[i].get_label() == f"{name}, CIFAR-10"
        np.testing.assert_array_equal(curves.lines[i].get_ydata(), [26.0, 27.0 + i])
        np.testing.assert_array_equal(dots.lines[i].get_ydata(), [27.0 + i, 27.1 + i])
        assert {to_hex(axes.lines[i].get_color()).upper() for axes in (curves, dots)} == {
            common.NETWORK_COLOURS[name]}


def test_levels_are_drawn_and_the_harm_is_marked():
    common.plot_noise_levels([0.1, 0.2, 0.3], [20, 14, 10], [18, 24, 20], 0.2, "Model2", "title")
    [axes] = plt.gcf().axes
    noisy, denoised, trained_on = axes.lines
    np.testing.assert_array_equal(noisy.get_ydata(), [20, 14, 10])
    np.testing.assert_array_equal(denoised.get_ydata(), [18, 24, 20])
    assert denoised.get_color() == common.NETWORK_COLOURS["Model2"]
    assert trained_on.get_xdata()[0] == 0.2
    [harm] = axes.collections
    [area] = harm.get_paths()
    assert area.vertices[:, 0].min() == 0.1
    assert area.vertices[:, 0].max() == pytest.approx(0.1 + 0.1 * 2 / 12)  # where the curves cross


def test_pictures_are_drawn_in_order_and_the_rest_stays_blank():
    pictures = {str(value): np.full((8, 12, 3), value, np.uint8) for value in (0, 51, 102, 255)}
    common.plot_pictures(pictures, "title", columns=3)
    places = plt.gcf().axes
    assert [axes.get_title() for axes in places] == ["0", "51", "102", "255", "", ""]
    for axes, value in zip(places, (0, 51, 102, 255)):
        np.testing.assert_allclose(axes.images[0].get_array(), value / 255)
    assert not any(axes.axison for axes in places)


@pytest.mark.parametrize("noises, clean", [("kinds", "few"), ("noises", "photo")])
def test_kinds_of_noise_have_the_same_error(few, noises, clean):
    variables = {"common": common, "np": np, "plt": plt, clean: few, "NOISE_STD": 0.1, "SEED": 0,
                 "rng": np.random.default_rng(0), "random_noise": skimage.util.random_noise}
    exec(code_with("Model1", f"{noises} = {{").partition("common.plot")[0], variables)
    assert list(variables[noises]) == ["Gaussian", "impulses", "Poisson", "speckle"]
    for kind, images in variables[noises].items():
        assert np.mean((images - few) ** 2) == pytest.approx(0.01, rel=0.03), kind


def test_deformations_draw_where_they_should_and_are_undone():
    height, width = 90, 120
    rows, columns = np.mgrid[:height, :width]
    photo = np.stack([rows / height, columns / width, rows * columns / height / width], axis=2)
    variables = {"np": np, "plt": plt, "common": common, "warp": skimage.transform.warp,
                 "photo": photo, "height": height, "width": width}
    exec(code_with("Model1", "def bend("), variables)
    exec(code_with("Model1", "curves = {"), variables)
    plt.close()
    assert list(variables["bent"]) == ["barrel", "pincushion", "fisheye"]
    edge = {name: image[45, 0].any() for name, image in variables["bent"].items()}
    assert edge == {"barrel": False, "pincushion": True, "fisheye": False}
    inside = np.s_[20:70, 30:90]
    for name, image in variables["bent"].items():
        assert np.abs(image - photo)[inside].max() > 0.02, name
        assert np.abs(variables["undone"][f"{name}, undone"] - photo)[inside].max() < 0.003, name


REACH = {"3 fewer layers": 4, "4 see further": 9, "6 a layer of your own": None}


@pytest.mark.parametrize("title, name, changes", exercises.EXERCISES)
def test_exercises_fit_their_notebook(title, name, changes, tmp_path):
    shutil.copy(ROOT / f"{name}.ipynb", tmp_path)
    exercises.alter(tmp_path, name, changes)
    variables = {"keras": keras, "layers": keras.layers, "NAME": name, "NOISE_STD": 0.1, "SEED": 0}
    code = next(cell.source for cell in notebooks.code_cells(name, tmp_path)
                if "keras.Model(" in cell.source)
    exec(code, variables)
    model = variables["model"]
    image = np.full((1, 20, 20, 3), 0.5, np.float32)
    assert model.predict_on_batch(image).shape == image.shape
    expected = REACH.get(title, 5)
    if expected is None:
        with pytest.raises(ValueError, match="Impulses"):
            common.reach(model)
    else:
        assert common.reach(model) == expected


def test_impulses_of_the_last_exercise_hit_as_many_values_as_they_should():
    variables = {"keras": keras, "layers": keras.layers, "SEED": 0}
    exec(exercises.IMPULSES.partition("DEPTH")[0], variables)
    layer = variables["Impulses"](0.2)
    image = np.full((1, 200, 200, 3), 0.5, np.float32)
    np.testing.assert_array_equal(layer(image, training=False), image)
    hit = np.asarray(layer(image, training=True))
    assert np.mean(hit == 0) == pytest.approx(0.1, rel=0.05)
    assert np.mean(hit == 1) == pytest.approx(0.1, rel=0.05)
    assert np.mean(hit == 0.5) == pytest.approx(0.8, rel=0.02)


def test_seeds_in_the_readme_are_those_of_the_file():
    shutil.copytree(ROOT / "weights", "weights")
    readme = (ROOT / "README.md").read_text()
    for name, reached in common.read_seeds()[1].items():
        row = " | ".join(f"{value:.2f}" for value in reached)
        assert f"| {name} | {row} |" in readme, "see weights/seeds.csv"


def test_exercises_are_answered_in_the_readme_and_asked_in_the_notebooks():
    readme = (ROOT / "README.md").read_text()
    for title, name, _ in exercises.EXERCISES:
        assert re.search(rf"^\| {re.escape(title)} \| {name} \| [\d. |]+\|$", readme, re.MULTILINE)
    for name in NAMES:
        text = "\n".join(cell.source for cell in notebooks.cells(name)[-2:])
        assert re.findall(r"^(\d)\. \*", text, re.MULTILINE) == list("1234567")
