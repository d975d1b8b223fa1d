"""The notebooks' own chapters: degradations, limits, models side by side; and their exercises."""

import json
import os

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
from notebooks import NAMES, code_with

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


def found(run=RUN):
    return {name: one.psnr[-1] for name, one in common.finished_runs(run, "checkpoints").items()}


def test_finished_runs_with_the_same_settings_stand_side_by_side():
    keep(1, model="Model3", psnr=[26.0, 29.0])
    keep(3, model="Model2", psnr=[26.0, 28.3])
    keep(2, model="Model2", psnr=[26.0, 28.2])
    assert found() == {"Model1": 27.0, "Model2": 28.3, "Model3": 29.0}
    assert list(found()) == ["Model1", "Model2", "Model3"]


@pytest.mark.parametrize("changes", [
    {"epochs": 3}, {"seed": 1}, {"noise_std": 0.2}, {"batch_size": 64}, {"data": "photographs"},
    {"train_images": 641}, {"model": "Model2-dilated"}, {"loss": [0.02], "psnr": [26.0]}])
def test_other_and_unfinished_runs_do_not_stand_beside_it(changes):
    keep(1, **{"model": "Model2", **changes})
    assert list(found()) == ["Model1"]


def test_damaged_checkpoints_are_passed_over():
    keep(1, model="Model2", psnr=[26.0, 28.0])
    with open(keep(2, model="Model2"), "wb") as file:
        file.write(b"no zip file")
    assert found()["Model2"] == 28.0


def test_curves_and_seeds_have_the_colour_of_their_model():
    runs = {name: RUN._replace(model=name, psnr=[26.0, 27.0 + i]) for i, name in enumerate(NAMES)}
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
    assert [axes.axison for axes in places] == 4 * [True] + 2 * [False]
    assert not any(axes.get_xticks().any() for axes in places[:4])


def test_pictures_are_embedded_as_jpeg_and_other_figures_as_the_user_wants(monkeypatch):
    shown = []
    monkeypatch.setattr(common, "display", shown.append)
    common.plot_pictures({"one": np.zeros((8, 8), np.uint8)}, "title")
    plt.gcf()._ipython_display_()
    assert shown[0].data.startswith(b"\xff\xd8")
    plt.figure()
    assert not hasattr(plt.gcf(), "_ipython_display_")


@pytest.mark.parametrize("reached", [[27.0], [27.0, 28.1, 28.5], [float("nan")] * 3])
def test_curves_of_any_run_have_the_same_axes(reached):
    common.plot_curves(RUN._replace(psnr=reached, epochs=len(reached)))
    left, right, *_ = plt.gcf().axes
    assert left.get_ylim() == pytest.approx((0.01 / 10**1.1, 0.04))
    assert right.get_ylim() == (18, 31) and right.get_xlim() == (0, 1.02 * len(reached))
    np.testing.assert_array_equal(left.lines[0].get_ydata(), [0.02, 0.01])
    np.testing.assert_array_equal(right.lines[0].get_ydata(), reached)
    insets = right.child_axes
    assert [inset.get_ylim() for inset in insets] == ([(28, 29)] if len(reached) == 3
                                                      and reached[0] == 27 else [])


@pytest.mark.parametrize("known", [True, False])
def test_the_last_panel_is_the_error_or_what_was_removed(known):
    clean, noisy, denoised = (np.full((20, 30, 3), value, np.uint8) for value in (100, 130, 110))
    common.plot_picture(noisy, denoised, clean if known else None, "title")
    places = plt.gcf().axes
    last = places[len(places) // 2 - 1]
    expected = 5 * 10 / 255 if known else 0.5 + 2 * 20 / 255
    np.testing.assert_allclose(last.images[0].get_array(), expected, atol=1e-6)
    assert last.get_title().startswith("error, ×5" if known else "removed, ×2")


def test_kinds_of_noise_have_the_same_error(few):
    variables = {"np": np, "rng": np.random.default_rng(0),
                 "random_noise": skimage.util.random_noise}
    exec(code_with("Model1", "def four_kinds(").partition("common.plot")[0], variables)
    noises = variables["four_kinds"](few, mse=0.01)
    assert list(noises) == ["Gaussian", "impulse", "Poisson", "speckle"]
    for kind, images in noises.items():
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


REACH = {"2 fewer layers": 4, "2 four layers": 4, "3 see further": 9, "3 a layer of your own": None}


@pytest.mark.parametrize("name, title, changes", exercises.EXERCISES)
def test_exercises_fit_their_notebook(name, title, changes, tmp_path):
    exercises.altered(tmp_path, name, changes)
    model = notebooks.built(name, notebooks.few_images(), 1, tmp_path)["model"]
    image = np.full((1, 20, 20, 3), 0.5, np.float32)
    assert model.predict_on_batch(image).shape == image.shape
    assert common.receptive_radius(model) == REACH.get(title, 5)


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
