"""The three networks, as the notebooks' own cells build them, against the assignment."""

import numpy as np
import pytest

import common
import notebooks
import recipe

PARAMETERS = {"Model1": (114_307, 0), "Model2": (114_307, 0), "Model3": (114_819, 512)}


@pytest.fixture(scope="module")
def model(name):
    return notebooks.network(name)


def layer_types(name):
    block = {"Model3": ["Conv2D", "BatchNormalization", "ReLU"]}.get(name, ["Conv2D", "ReLU"])
    skip = [] if name == "Model1" else ["Add"]
    return ["InputLayer", "GaussianNoise", *block * 4, "Conv2D", *skip]


def test_settings_are_the_assignments(name):
    settings = notebooks.settings(name)
    expected = {"NAME": name, "EPOCHS": 100, "BATCH_SIZE": 32, "NOISE_STD": 0.1}
    assert {key: settings[key] for key in expected} == expected
    [cell] = [cell for cell in notebooks.code_cells(name) if 'NAME = "' in cell.source]
    assert "parameters" in notebooks.tags(cell)  # for papermill


def test_layers(name, model):
    assert [type(layer).__name__ for layer in model.layers] == layer_types(name)
    assert model.input_shape == (None, None, None, 3)
    assert model.layers[1].stddev == 0.1
    convolutions = [layer for layer in model.layers if type(layer).__name__ == "Conv2D"]
    assert [layer.filters for layer in convolutions] == [64, 64, 64, 64, 3]
    for layer in convolutions:
        config = layer.get_config()
        assert (config["kernel_size"], config["strides"]) == ((3, 3), (1, 1))
        assert (config["padding"], config["use_bias"]) == ("same", True)
        assert config["activation"] == "linear"


def test_parameters_and_loss(name, model):
    assert model.loss == "mse"
    trainable = sum(np.asarray(weight).size for weight in model.trainable_weights)
    assert (trainable, model.count_params() - trainable) == PARAMETERS[name]


def test_rows_of_the_ablation_are_the_notebooks_but_for_what_they_say(name, model):
    plain = recipe.build(name, recipe.PLAIN)
    last = [each.layers[-1 if name == "Model1" else -2] for each in (plain, model)]
    assert [np.any(layer.get_weights()[0]) for layer in last] == [True, name == "Model1"]
    norms = [layer for layer in plain.layers if "batchnorm" in layer.name]
    assert [layer.momentum for layer in norms] == (4 * [0.99] if name == "Model3" else [])
    same = recipe.build(name, recipe.RECIPE)
    assert same.get_config() == model.get_config()
    for ours, theirs in zip(same.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert type(model.optimizer) is recipe.RECIPE["optimizer"]
    assert model.optimizer.get_config()["momentum"] == common.Muon().momentum


def test_learning_rate_rises_and_falls_to_zero(name):
    images = np.zeros((640, 32, 32, 3), np.uint8)
    data = common.Data("640 images", images, images)
    schedule = notebooks.built(name, data, epochs=10)["model"].optimizer._learning_rate
    rates = [float(schedule(step)) for step in range(201)]
    expected = recipe.learning_rate(recipe.RECIPE, 200)
    assert rates == [float(expected(step)) for step in range(201)]
    assert rates[0] == 0 and rates[200] == pytest.approx(0, abs=1e-9)
    assert np.argmax(rates) == 10 and max(rates) == pytest.approx(recipe.RECIPE["rate"])
    assert np.all(np.diff(rates[:11]) > 0) and np.all(np.diff(rates[10:]) < 0)
    constant = recipe.learning_rate(recipe.PLAIN, 200)
    assert {float(constant(step)) for step in (0, 9, 200)} == {np.float32(1e-3)}


@pytest.mark.parametrize("name", ["Model2", "Model3"])
def test_skip_connection_starts_behind_the_noise(name):
    model = notebooks.network(name)  # whose last convolution begins with zeros
    image = np.full((4, 32, 32, 3), 0.5, np.float32)
    noise = np.asarray(model(image, training=True)) - image
    assert noise.std() == pytest.approx(0.1, rel=0.05)
    np.testing.assert_array_equal(model(image, training=False), image)
