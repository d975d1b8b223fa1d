"""Scales, noise and metrics."""

import numpy as np
import pytest

import common


def test_scales_are_clipped_and_rounded_but_never_stretched():
    levels = np.arange(256, dtype=np.uint8)
    assert common.to_float(levels).dtype == np.float32
    np.testing.assert_array_equal(common.from_float(common.to_float(levels)), levels)
    values = np.array([-3.0, -0.001, 0.3, 0.5004, 0.7, 1.0, 1.2])
    np.testing.assert_array_equal(common.from_float(values), [0, 0, 76, 128, 178, 255, 255])
    np.testing.assert_array_equal(common.from_float(np.array([0.4, 0.5])), [102, 128])


def test_noise_has_the_strength_asked_for_and_is_not_clipped():
    clean = np.zeros((50, 32, 32, 3), np.float32)
    noise = common.add_noise(clean, 0.1, seed=3)
    assert noise.dtype == np.float32
    assert noise.std() == pytest.approx(0.1, rel=0.01)
    assert noise.mean() == pytest.approx(0, abs=0.001)
    assert noise.min() < -0.3
    np.testing.assert_array_equal(noise, common.add_noise(clean, 0.1, seed=3))
    assert not np.array_equal(noise, common.add_noise(clean, 0.1, seed=4))


def test_psnr_of_known_errors():
    clean = np.full((4, 4, 3), 0.5, np.float32)
    assert common.psnr(clean, clean + np.float32(0.1)) == pytest.approx(20, abs=1e-4)
    grey = np.full((4, 4, 3), 100, np.uint8)
    assert common.psnr(grey, grey + np.uint8(51)) == pytest.approx(20 * np.log10(5))
    deep = 257 * grey.astype(np.uint16)
    assert common.psnr(grey, deep + np.uint16(13107)) == pytest.approx(20 * np.log10(5), abs=1e-4)
    assert common.psnr(grey, common.to_float(deep) + 0.2) == pytest.approx(20 * np.log10(5))


def test_score_tells_the_two_ways_to_average_apart():
    clean = np.full((2, 16, 16, 3), 0.5, np.float32)
    images = clean.copy()
    images[0] += np.float32(0.1)
    images[1] += np.float32(0.01)
    scores = common.score(clean, images)
    np.testing.assert_allclose(scores.image_psnr, [20, 40], atol=1e-3)
    assert scores.psnr == pytest.approx(-10 * np.log10((0.01 + 0.0001) / 2), abs=1e-3)


def test_ssim_is_of_each_image(photographs):
    clean = common.to_float(photographs.test[:2])
    worse = common.add_noise(clean, 0.2, 0)
    ssim = common.score(clean, np.stack([clean[0] + 1e-6, worse[1]])).image_ssim
    assert ssim[0] == pytest.approx(1, abs=1e-3) and ssim[1] < 0.95
