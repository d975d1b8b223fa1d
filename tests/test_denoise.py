"""Denoising arrays of every size and kind: without seams, with alpha, type and contrast right."""

import keras
import numpy as np
import pytest
import skimage.data
from keras import layers
from PIL import Image

import common
import notebooks
from conftest import network_of, random_image


@pytest.fixture(scope="module")
def trained(name):
    return notebooks.published(name)


def at_once(model, image):
    """Return what the network makes of the whole of an RGB image, by Keras alone."""
    return np.clip(model.predict(common.to_float(image)[np.newaxis], verbose=0)[0], 0, 1)


@pytest.mark.parametrize("size", [(1, 97), (33, 32), (127, 83)])
def test_no_seam_is_left(trained, monkeypatch, size):
    monkeypatch.setattr(common, "WINDOW", 32)
    image = random_image(*size, 3, dtype=np.float32)
    np.testing.assert_allclose(common.denoise(trained, image), at_once(trained, image),
                               rtol=0, atol=1e-5)


def test_no_seam_is_left_by_a_network_that_sees_further(monkeypatch):
    monkeypatch.setattr(common, "WINDOW", 16)
    keras.utils.set_random_seed(0)
    block = keras.Sequential([layers.ReLU(), layers.Conv2D(8, 4, padding="same")])
    model = network_of(layers.Conv2D(8, 5, dilation_rate=2, padding="same"), block,
                       layers.SpectralNormalization(layers.Conv2D(8, 3, padding="same")),
                       layers.BatchNormalization(),
                       layers.DepthwiseConv2D((1, 7), padding="same"),
                       layers.Conv2D(3, 1, padding="same"))
    assert common.receptive_radius(model) == 4 + 2 + 1 + 3
    image = random_image(40, 37, 3, dtype=np.float32)
    np.testing.assert_allclose(common.denoise(model, image), at_once(model, image),
                               rtol=0, atol=1e-5)


@pytest.mark.parametrize("layer", [lambda: layers.Conv2D(3, 3, padding="valid"),
                                   lambda: layers.Conv2D(1, 3, padding="same")])
def test_a_network_that_does_not_keep_the_size_is_refused(layer):
    with pytest.raises(common.Halt, match=r"of an image \(40, 37, 3\)"):
        common.denoise(network_of(layer()), random_image(40, 37, 3))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
@pytest.mark.parametrize("channels", [(), (1,), (2,), (3,), (4,)])
def test_shape_type_and_range_are_kept(dtype, channels):
    image = random_image(23, 17, *channels, dtype=dtype)
    before = image.copy()
    same = common.denoise(network_of(layers.Identity()), image)
    assert (same.shape, same.dtype) == (image.shape, image.dtype)
    np.testing.assert_allclose(same, image, rtol=0, atol=0 if image.dtype.kind == "u" else 1e-6)
    white = common.denoise(network_of(layers.Rescaling(1, offset=2.0)), image)
    if channels in ((2,), (4,)):
        np.testing.assert_array_equal(white[..., -1], image[..., -1])
        white = white[..., :-1]
    assert np.all(white == (np.iinfo(dtype).max if image.dtype.kind == "u" else 1))
    np.testing.assert_array_equal(image, before)


def test_grey_is_the_mean_of_what_the_network_makes_of_it():
    tint = network_of(layers.Conv2D(3, 1))
    tint.set_weights([np.zeros((1, 1, 3, 3)), np.array([0.1, 0.5, 0.6])])
    grey = common.denoise(tint, np.full((3, 4), 0.9, np.float32))
    np.testing.assert_allclose(grey, 0.5 - np.sqrt(3) * 0.1, atol=1e-6)


@pytest.mark.parametrize("channels, relative_noise, contrast", [
    (3, 1, 1), (3, 2, 0.5), (3, 0.5, 1), (3, 0, 1), (1, 1, 3 ** -0.5), (1, 2, 0.5 * 3 ** -0.5),
    (1, 0.5, 1), (1, 0.7, 1 / 0.7 * 3 ** -0.5), (1, 0, 1)])
def test_the_network_sees_the_noise_that_it_was_trained_on(channels, relative_noise, contrast):
    offset = network_of(layers.Rescaling(1, offset=0.1))  # which the contrast divides by itself
    image = np.full((30, 30, channels), 0.4, np.float32)
    image[0, 0, 0] = 0.5  # three equal channels would be grey
    brighter = common.denoise(offset, image, relative_noise)[1:]
    np.testing.assert_allclose(brighter, 0.4 + 0.1 / contrast, atol=1e-5)


def noisy_photo(name, noise_std, grey=False):
    clean = common.to_float(getattr(skimage.data, name)())
    clean = clean.mean(axis=2) if grey else clean
    return clean, common.from_float(common.add_noise(clean, noise_std, seed=0))


@pytest.mark.parametrize("photo, noise_std, expected", [
    ("chelsea", 0.05, 33.2), ("rocket", 0.02, 35.4), ("chelsea", 0.1, 30.4)])
def test_weak_noise_in_grey_is_taken_off_at_full_contrast(photo, noise_std, expected):
    model = notebooks.published("Model3")
    clean, noisy = noisy_photo(photo, noise_std, grey=True)
    denoised = common.denoise(model, noisy, noise_std / 0.1)
    assert common.psnr(clean, denoised) == pytest.approx(expected, abs=0.15)
    as_colour = np.dstack([noisy] * 3)
    estimate = common.estimate_noise(as_colour)
    assert estimate == common.estimate_noise(noisy) == pytest.approx(noise_std, rel=0.15)
    np.testing.assert_array_equal(common.denoise(model, as_colour, noise_std / 0.1),
                                  np.dstack([denoised] * 3))


@pytest.mark.parametrize("photo, kind, noise_std", [
    ("chelsea", "png", 0.02), ("chelsea", "jpg", 0.1), ("rocket", "png", 0.2)])
def test_noise_is_estimated(photo, kind, noise_std):
    Image.fromarray(noisy_photo(photo, noise_std)[1]).save(f"noisy.{kind}", quality=92)
    picture, _ = common.open_picture(f"noisy.{kind}")
    assert common.estimate_noise(picture) == pytest.approx(noise_std, rel=0.25)


@pytest.mark.parametrize("value", [0, 128, 255])
def test_flat_areas_and_alpha_do_not_count(value):
    picture = common.noisy_picture()
    picture[:, :256] = value
    assert common.estimate_noise(picture) == pytest.approx(0.1, rel=0.3)
    picture[:] = value
    assert common.estimate_noise(np.dstack([picture, random_image(512, 512)])) == 0


def test_one_network_after_another_brings_no_warning_of_the_backend(capfd, caplog):
    for size in range(20, 28):
        common.denoise(network_of(layers.Conv2D(3, 3, padding="same")),
                       np.zeros((size, 30, 3), np.uint8))
    printed = capfd.readouterr()
    assert printed.out + printed.err + caplog.text == ""


@pytest.mark.parametrize("image, reason", [
    (np.zeros(5), r"shape \(5,\)"), (np.zeros((4, 4, 5)), "1 to 4 channels"),
    (np.zeros((0, 4, 3)), "has pixels"), (np.zeros((4, 4), int), "int64 from 0 to 0"),
    (np.full((4, 4), 255.0), "values from 0 to 1"), (np.full((4, 4), np.nan), "from nan")])
def test_arrays_that_are_no_images_are_refused(image, reason):
    with pytest.raises(common.Halt, match=reason):
        common.denoise(network_of(layers.Identity()), image)
