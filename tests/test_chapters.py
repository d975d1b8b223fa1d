"""The notebooks' own chapters: degradations, limits, models side by side; and their exercises."""

import functools
import json
import os
import types

import keras
import matplotlib.pyplot as plt
import numpy as np
import pytest
import skimage.util

import common
import exercises
import notebooks
from conftest import random_image
from notebooks import code_with

RUN = common.Run("Model1", "CIFAR-10", 640, 64, 2, 32, 0.1, 0, 20.0, "2026-11-25", "Keras",
                 [0.02, 0.01], [26.0, 27.0], [1.0, 1.0], [[1, 0.02, 4e-3], [2, 0.01, 0.0]])


@pytest.fixture
def few(photographs):
    return common.Data("few", photographs.train[:64], common.to_float(photographs.test[:200]))


def keep(number, **changes):
    """Write a checkpoint of a run that differs from RUN; the higher the number, the newer."""
    run = RUN._replace(**changes)
    path = f"checkpoints/{run.model}-{number:016x}.npz"
    os.makedirs("checkpoints", exist_ok=True)
    np.savez(path, run=json.dumps(run._asdict()))
    os.utime(path, (number, number))


def found(run=RUN):
    return {name: one.psnr[-1] for name, one in common.finished_runs(run, "checkpoints").items()}


def test_finished_runs_with_the_same_settings_stand_side_by_side():
    keep(1, model="Model3", psnr=[26.0, 29.0])
    keep(3, model="Model2", psnr=[26.0, 28.3])
    keep(2, model="Model2", psnr=[26.0, 28.2])
    keep(4, model="Model2-1", psnr=[26.0, 28.1])
    assert found() == {"Model1": 27.0, "Model2": 28.3, "Model2-1": 28.1, "Model3": 29.0}
    assert list(found()) == ["Model1", "Model2", "Model2-1", "Model3"]


@pytest.mark.parametrize("changes", [
    {"epochs": 3}, {"seed": 1}, {"noise_std": 0.2}, {"batch_size": 64}, {"data": "photographs"},
    {"train_images": 641}, {"loss": [0.02], "psnr": [26.0]}])
def test_other_and_unfinished_runs_do_not_stand_beside_it(changes):
    keep(1, **{"model": "Model2", **changes})
    assert list(found()) == ["Model1"]


def test_figures_are_drawn_in_the_default_style_whatever_is_set():
    def drawn():
        common.plot_curves(RUN)
        pixels = common._encoded(plt.gcf(), "png")
        plt.close()
        return pixels

    expected = drawn()
    with plt.style.context("dark_background"):
        assert drawn() == expected
        assert plt.rcParams["figure.facecolor"] == "black"


@pytest.mark.parametrize("reached", [[27.0], [27.0, 28.1, 28.5]])
def test_curves_of_any_run_have_the_same_axes(reached):
    common.plot_curves(RUN._replace(psnr=reached, epochs=len(reached)))
    left, right, rate = plt.gcf().axes
    assert left.get_ylim() == pytest.approx((0.01 / 20, 0.4))  # CIFAR-10's first steps: 0.28
    assert right.get_ylim() == (19, 30)
    assert left.get_xscale() == right.get_xscale() == "log"
    np.testing.assert_array_equal(left.lines[0].get_ydata(), [0.02, 0.01])
    np.testing.assert_array_equal(right.lines[0].get_ydata(), reached)
    np.testing.assert_array_equal(rate.lines[0].get_ydata(), [4e-3, 0])


def test_each_picture_stands_above_its_crop():
    noisy, clean = (random_image(50, 40, *shape) for shape in ((3,), ()))
    common.plot_zoomed({"noisy": noisy, "clean": clean}, "title")
    places = plt.gcf().axes
    assert [axes.get_title() for axes in places] == ["noisy", "clean", "", ""]
    shown = [axes.images[0].get_array() for axes in places]
    np.testing.assert_allclose(shown[0], noisy / 255, atol=1e-6)
    np.testing.assert_allclose(shown[1], np.dstack([clean] * 3) / 255, atol=1e-6)
    box = places[0].patches[0]
    left, top, size = int(box.get_x() + 0.5), int(box.get_y() + 0.5), int(box.get_width())
    np.testing.assert_array_equal(shown[2], shown[0][top:top + size, left:left + size])
    assert size == box.get_height() == 8


def test_the_signed_residual_of_model2_is_the_noise(few, capsys):
    source = code_with("Model2", "inside = keras.Model(")
    shown = {}
    model = notebooks.network("Model2")
    model.get_layer("conv5").set_weights([np.zeros((3, 3, 64, 3)), np.full(3, -0.01)])
    exec(source, {
        "np": np, "plt": plt, "keras": keras, "DEPTH": 5, "model": model, "data": few,
        "common": types.SimpleNamespace(plot_pictures=lambda panels, title: shown.update(panels)),
        "clean_test": few.test, "noisy_test": few.test + np.float32(0.02)})
    expected = {"noise that was added, ×2": 0.54, "what the layers take off, ×2": 0.52,
                "difference, ×2": 0.52}
    for panel, value in expected.items():
        np.testing.assert_allclose(shown[panel], value, atol=1e-5)


def test_strengths_of_classical_methods_are_tuned_on_training_images(few):
    seen = []

    def method(image, strength):
        seen.append(image)
        return image

    train = np.full((70, 32, 32, 3), 200, np.uint8)
    exec(code_with("Model3", "tuning = "), {
        "np": np, "common": common, "functools": functools, "NOISE_STD": 0.1, "SEED": 0,
        "NAME": "Model3", "model": None, "classical": {"one": method},
        "data": common.Data("few", train, few.test), "clean_test": few.test,
        "noisy_test": few.test})
    assert len(seen) == 64 * 6 and all(abs(image.mean() - 200 / 255) < 0.01 for image in seen)


def test_kinds_of_noise_have_the_same_error(few):
    variables = {"np": np, "rng": np.random.default_rng(0),
                 "random_noise": skimage.util.random_noise}
    exec(code_with("Model1", "def four_kinds(").partition("common.plot")[0], variables)
    noises = variables["four_kinds"](few.test, mse=0.01)
    assert list(noises) == ["Gaussian", "impulse", "Poisson", "speckle"]
    for kind, images in noises.items():
        assert np.mean((images - few.test) ** 2) == pytest.approx(0.01, rel=0.03), kind


REACH = {"2 fewer layers": 4, "2 four layers": 4, "3 see further": 9}


@pytest.mark.parametrize("name, title, changes", exercises.EXERCISES)
def test_exercises_fit_their_notebook(name, title, changes, tmp_path):
    exercises.altered(tmp_path, name, changes)
    model = notebooks.built(name, notebooks.few_images(), 1, tmp_path)["model"]
    image = np.full((1, 20, 20, 3), 0.5, np.float32)
    assert model.predict_on_batch(image).shape == image.shape
    assert common.receptive_radius(model) == REACH.get(title, 5)
