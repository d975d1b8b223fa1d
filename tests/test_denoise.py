"""Denoising arrays of every size and kind: in windows as if at once, with alpha and type kept."""

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image

import common
import notebooks
from conftest import network_of, random_image


@pytest.fixture(scope="module")
def trained(name):
    model = notebooks.network(name)
    keras.Model(model.input, model.output).load_weights(
        notebooks.ROOT / "weights" / f"{name}.weights.h5")
    return model


def at_once(model, image):
    """Return what the network makes of the whole of an RGB image, by Keras alone."""
    return np.clip(model.predict(common.to_float(image)[np.newaxis], verbose=0)[0], 0, 1)


def cut(size):
    return len(common._spans(size[0], 5)) * len(common._spans(size[1], 5))


SIZES = [(1, 1), (1, 97), (97, 1), (4, 5), (9, 200), (31, 32), (32, 33), (42, 41), (43, 54),
         (55, 64), (65, 66), (127, 83)]


@pytest.mark.parametrize("size", SIZES)
def test_windows_put_together_equal_the_whole(trained, monkeypatch, size):
    monkeypatch.setattr(common, "WINDOW", 32)
    assert (cut(size) > 1) == (max(size) > 32)
    image = random_image(*size, 3, dtype=np.float32)
    np.testing.assert_allclose(common.denoise(trained, image), at_once(trained, image),
                               rtol=0, atol=1e-5)


@pytest.mark.parametrize("length", [1, 10, 11, 31, 32, 33, 53, 54, 55, 1000])
@pytest.mark.parametrize("halo", [0, 1, 5, 15, 16, 40])
def test_windows_cover_each_pixel_and_are_equally_large(monkeypatch, length, halo):
    monkeypatch.setattr(common, "WINDOW", 32)
    spans = common._spans(length, halo)
    assert len({stop - start for start, stop, _, _ in spans}) == 1
    covered = np.zeros(length, bool)
    for start, stop, first, last in spans:
        assert 0 <= start <= first < last <= stop <= length
        assert first - start >= halo or start == 0
        assert stop - last >= halo or stop == length
        covered[first:last] = True
    assert covered.all()
    assert sum(stop - start for start, stop, _, _ in spans) <= 2.2 * length + 4 * halo


def test_windows_are_no_larger_than_they_must(monkeypatch):
    for length in (513, 600, 1024, 4000, 6000):
        spans = common._spans(length, 5)
        assert spans[0][1] <= common.WINDOW
        assert sum(stop - start for start, stop, _, _ in spans) < 1.05 * length


def skipping_network():
    image = keras.Input((None, None, 3))
    return keras.Model(image, image + layers.Conv2D(3, 3, padding="same")(image))


def twice_network():
    image = keras.Input((None, None, 3))
    layer = layers.Conv2D(3, 3, padding="same")
    return keras.Model(image, layer(layer(image)))


def conv(kernel, **options):
    return layers.Conv2D(3, kernel, padding="same", **options)


@pytest.mark.parametrize("build, pixels", [
    (lambda: network_of(conv(1)), 0),
    (lambda: network_of(conv(3), layers.ReLU(), conv((1, 7))), 4),
    (lambda: network_of(conv(3, dilation_rate=3)), 3),
    (lambda: network_of(conv(5, dilation_rate=2), layers.BatchNormalization()), 4),
    (lambda: network_of(conv(2)), 1),
    (lambda: network_of(conv(4), conv(3)), 3),
    (lambda: network_of(layers.DepthwiseConv2D(3, padding="same")), 1),
    (lambda: keras.Sequential([keras.Input((None, None, 3)), conv(3), conv(3)]), 2),
    (skipping_network, 1),
    (twice_network, 2),
])
def test_receptive_radius_follows_from_the_network(monkeypatch, capsys, build, pixels):
    monkeypatch.setattr(common, "WINDOW", 16)
    keras.utils.set_random_seed(0)
    model = build()
    assert common.receptive_radius(model) == pixels
    image = random_image(40, 37, 3, dtype=np.float32)
    np.testing.assert_allclose(common.denoise(model, image), at_once(model, image),
                               rtol=0, atol=1e-5)
    assert capsys.readouterr().out == ""


def less_the_mean(x):
    return x - keras.ops.mean(x, axis=(1, 2), keepdims=True)


class Add(layers.Layer):
    """A layer by the name of one of Keras's own that looks at the whole image."""

    def call(self, x):
        return x + keras.ops.mean(x, axis=(1, 2), keepdims=True)


@pytest.mark.parametrize("layer", [
    lambda: layers.Lambda(lambda x: x - keras.ops.mean(x)),
    Add,
    lambda: layers.MaxPooling2D(3, strides=1, padding="same"),
    lambda: layers.GroupNormalization(3),
    lambda: layers.Activation(less_the_mean),
    lambda: conv(3, activation=less_the_mean),
    lambda: network_of(conv(3)),
])
def test_a_network_that_is_not_understood_is_not_cut_and_says_so(monkeypatch, capsys, layer):
    monkeypatch.setattr(common, "WINDOW", 16)
    keras.utils.set_random_seed(0)
    model = network_of(layer())
    assert common.receptive_radius(model) is None
    image = random_image(40, 37, 3, dtype=np.float32)
    np.testing.assert_allclose(common.denoise(model, image), at_once(model, image),
                               rtol=0, atol=1e-5)
    assert "in one piece" in capsys.readouterr().out


@pytest.mark.parametrize("layer", [
    lambda: layers.Conv2D(3, 3, padding="valid"),
    lambda: layers.Conv2D(3, 3, padding="same", strides=2),
    lambda: layers.Conv2D(1, 3, padding="same"),
])
def test_a_network_that_does_not_keep_the_size_is_refused(layer):
    with pytest.raises(ValueError, match=r"of an image \(40, 37, 3\)"):
        common.denoise(network_of(layer()), random_image(40, 37, 3))


def test_a_network_of_ones_own_class_is_not_cut(monkeypatch, capsys):
    monkeypatch.setattr(common, "WINDOW", 16)

    class Own(keras.Model):
        def call(self, x):
            return x

    image = random_image(20, 30, 3)
    np.testing.assert_array_equal(common.denoise(Own(name="own"), image), image)
    assert "in one piece" in capsys.readouterr().out


def test_what_fits_in_one_window_needs_no_radius(capsys):
    image = random_image(20, 30, 3)
    model = network_of(layers.MaxPooling2D(3, strides=1, padding="same"))
    np.testing.assert_array_equal(common.denoise(model, image),
                                  common.to_uint8(at_once(model, common.to_float(image))))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float16, np.float32, np.float64])
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
    tint = network_of(conv(1))
    tint.set_weights([np.zeros((1, 1, 3, 3)), np.array([0.1, 0.5, 0.6])])
    grey = common.denoise(tint, np.full((3, 4), 0.9, np.float32))
    np.testing.assert_allclose(grey, 0.5 - np.sqrt(3) * 0.1, atol=1e-6)


def test_three_equal_channels_are_grey(trained):
    grey = random_image(40, 30)
    once = common.denoise(trained, grey)
    thrice = common.denoise(trained, np.dstack([grey] * 3))
    np.testing.assert_array_equal(thrice, np.dstack([once] * 3))


class Spy(layers.Layer):
    """Passes images on and keeps their standard deviation and range."""

    def __init__(self):
        super().__init__()
        self.contrast, self.low, self.high = (
            self.add_weight(shape=(), trainable=False) for _ in range(3))

    def call(self, x):
        self.contrast.assign(keras.ops.std(x))
        self.low.assign(keras.ops.min(x))
        self.high.assign(keras.ops.max(x))
        return x


@pytest.mark.parametrize("channels, low, high, noise_std, factor", [
    (3, 0, 1, None, 1), (3, 0, 1, 0.1, 1), (3, 0, 1, 0.2, 0.5), (3, 0, 1, 0.05, 1),
    (3, 0.4, 0.6, 0.05, 2), (3, 0.4, 0.6, 0.01, 5), (1, 0, 1, 0.1, 3 ** -0.5),
    (1, 0, 1, 0.2, 0.5 * 3 ** -0.5), (1, 0.1, 0.2, 0.001, 10 * 3 ** -0.5)])
def test_the_network_sees_the_noise_that_it_was_trained_on(channels, low, high, noise_std, factor):
    image = low + (high - low) * random_image(30, 30, channels, dtype=np.float32)
    image[0, 0], image[0, 1] = low, high
    spy = Spy()
    same = common.denoise(network_of(spy), image, noise_std, 0.1)
    np.testing.assert_allclose(same, image, atol=1e-6)
    assert float(spy.contrast) == pytest.approx(factor * image.std(), rel=1e-3)
    assert float(spy.low) >= -1e-6 and float(spy.high) <= 1 + 1e-6


def test_contrast_helps_where_the_noise_is_stronger_and_in_grey(trained):
    clean = common.to_float(common.clean_picture())[:200, 150:350]
    noisy = common.add_noise(clean, 0.2, seed=1)
    assert (common.psnr(clean, common.denoise(trained, noisy, 0.2))
            > common.psnr(clean, common.denoise(trained, noisy)) + 1)
    grey = clean.mean(axis=2)
    noisy = common.add_noise(grey, 0.1, seed=1)
    as_colour = at_once(trained, np.dstack([noisy] * 3)).mean(axis=2)
    assert common.psnr(grey, common.denoise(trained, noisy)) > common.psnr(grey, as_colour) + 1


def test_twelve_bits_in_sixteen_are_denoised_at_their_own_contrast(trained):
    clean = common.to_float(common.clean_picture())[:200, 150:350].mean(axis=2)
    noisy = np.clip(common.add_noise(clean, 0.1, seed=1), 0, 1)
    twelve = np.round(4095 * noisy).astype(np.uint16)
    estimate = common.estimate_noise(twelve)
    assert estimate * 65535 / 4095 == pytest.approx(0.1, rel=0.15)
    assert "only the lowest 6.2% of its 16 bits" in common.describe_noise(twelve, estimate, 0.1)
    denoised = common.denoise(trained, twelve, estimate)
    assert denoised.dtype == np.uint16
    at_best = common.psnr(clean, common.denoise(trained, noisy))
    assert common.psnr(clean, np.float32(denoised / 4095)) == pytest.approx(at_best, abs=0.5)


def test_numbers_in_another_byte_order_are_the_same(trained):
    image = random_image(20, 30, 3, dtype=np.uint16)
    np.testing.assert_array_equal(common.denoise(trained, image.astype(">u2")),
                                  common.denoise(trained, image))


@pytest.mark.parametrize("noise_std, trained_std", [(-0.1, 0.1), (float("nan"), 0.1), (2, 0.1),
                                                    (0.1, 0)])
def test_noise_that_makes_no_sense_is_refused(noise_std, trained_std):
    with pytest.raises(ValueError, match="both are standard deviations"):
        common.denoise(network_of(layers.Identity()), random_image(20, 20), noise_std, trained_std)


def test_one_network_after_another_brings_no_warning_of_the_backend(capfd, caplog):
    for size in range(20, 28):
        common.denoise(network_of(conv(3)), np.zeros((size, 30, 3), np.uint8))
    printed = capfd.readouterr()
    assert printed.out + printed.err + caplog.text == ""


@pytest.mark.parametrize("image, reason", [
    (np.zeros(5), r"shape \(5,\)"),
    (np.zeros((2, 3, 3, 3)), "shape"),
    (np.zeros((4, 4, 5)), "1 to 4 channels"),
    (np.zeros((0, 4, 3)), "has pixels"),
    (np.zeros((4, 4), int), "int64"),
    (np.zeros((4, 4), bool), "bool"),
    (np.full((4, 4), 255.0), "values from 0 to 1"),
    (np.full((4, 4), np.nan), "values from nan"),
    (np.full((4, 4), -np.inf), "values from -inf"),
    (np.linspace(-1, 1, 16).reshape(4, 4), "values from -1 to 1; .* from 0 to 1"),
    (Image.new("P", (4, 4)), r"a PIL image. Take an array: np.asarray\(image.convert\('RGB'\)\)"),
])
def test_arrays_that_are_no_images_are_refused(image, reason):
    with pytest.raises(common.PictureError, match=reason):
        common.denoise(network_of(layers.Identity()), image)


def test_noise_may_lead_a_float_image_below_zero():
    image = common.add_noise(np.zeros((50, 50, 3), np.float32), 0.2, seed=0)
    same = common.denoise(network_of(layers.Identity()), image)
    np.testing.assert_allclose(same, np.clip(image, 0, 1), atol=1e-6)


def test_progress_is_shown_if_it_takes_long(monkeypatch, capsys):
    monkeypatch.setattr(common, "WINDOW", 16)
    model = network_of(layers.Identity())
    common.denoise(model, random_image(32, 20, 3))
    assert capsys.readouterr().out == ""
    common.denoise(model, random_image(160, 160, 3))
    assert "100/100" in capsys.readouterr().out


@pytest.mark.parametrize("noise_std", [0.02, 0.05, 0.1, 0.15, 0.2, 0.3])
@pytest.mark.parametrize("photo", common.TEST_PHOTOS)
def test_noise_is_estimated_although_it_is_clipped(photo, noise_std):
    clean = common.to_float(getattr(common.skimage.data, photo)())
    noisy = common.to_uint8(common.add_noise(clean, noise_std, seed=0))
    assert common.estimate_noise(noisy) == pytest.approx(noise_std, rel=0.15, abs=0.005)
    grey = common.to_uint8(common.add_noise(clean.mean(axis=2), noise_std, seed=0))
    assert common.estimate_noise(grey) == pytest.approx(noise_std, rel=0.15)


@pytest.mark.parametrize("value", [0, 128, 255])
def test_flat_areas_do_not_count(value):
    picture = common.noisy_picture()
    picture[:, :256] = value
    assert common.estimate_noise(picture) == pytest.approx(0.1, rel=0.25)
    picture[:] = value
    assert common.estimate_noise(picture) == 0
    assert common.describe_noise(picture, 0.0, 0.1) == "There is no noise in the picture."


def test_alpha_does_not_count_as_noise():
    picture = np.full((64, 64, 4), 128, np.uint8)
    picture[..., 3] = random_image(64, 64)
    assert common.estimate_noise(picture) == pytest.approx(0, abs=1e-3)


def test_noise_is_estimated_although_jpeg_has_smoothed_its_colours(tmp_path):
    clean = common.to_float(common.skimage.data.chelsea())
    noisy = common.to_uint8(common.add_noise(clean, 0.2, seed=0))
    Image.fromarray(noisy).save(tmp_path / "cat.jpg", quality=92)
    estimate = common.estimate_noise(common.open_picture(tmp_path / "cat.jpg"))
    assert estimate == pytest.approx(0.2, rel=0.15)


def test_noise_is_put_into_words():
    picture = np.linspace(0, 1, 3000).reshape(50, 20, 3)

    def words(noise_std):
        return common.describe_noise(picture, noise_std, 0.1)

    assert words(0.1) == "Its noise is about 0.1; the network was trained on 0.1."
    assert "0.05" in words(0.05) and "weaker: expect" in words(0.05)
    assert "0.02" in words(0.02) and "worse than the picture itself" in words(0.02)
    assert words(0.2).endswith("So the network sees the picture at 0.5 times its contrast.")
    assert common.estimate_noise(picture[:15]) is None and "too small" in words(None)
