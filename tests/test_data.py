"""Where the images come from, and what is said when they do not."""

import socket

import keras
import numpy as np
import pytest
import skimage.data

import common
from conftest import random_image

IMAGES = {"x_train": random_image(6, 32, 32, 3), "x_test": random_image(4, 32, 32, 3, seed=1)}


@pytest.mark.parametrize("file, name", [("cifar10.npz", "CIFAR-10"), ("mine.npz", "mine")])
def test_named_npz_is_read(monkeypatch, file, name):
    np.savez(file, **IMAGES)
    monkeypatch.setenv("DENOISE_DATA", file)
    data = common.load_data()
    np.testing.assert_array_equal(data.train, IMAGES["x_train"])
    np.testing.assert_array_equal(data.test, IMAGES["x_test"])
    assert str(data) == f"{name}: 6 training images, 4 test images"


@pytest.mark.parametrize("make, reason", [
    (lambda path: None, "No such file.* or the word photos"),
    (lambda path: path.write_bytes(b"PK\3\4, and the rest is missing"), "not a zip file"),
    (lambda path: np.savez(path, x_train=IMAGES["x_train"]), "x_test is not a file"),
    (lambda path: np.savez(path, **IMAGES | {"x_train": np.zeros((2, 32, 32, 3))}),
     r"it holds float64 of shape \(2, 32, 32, 3\)")])
def test_wrong_npz_is_refused_by_name_and_never_replaced(monkeypatch, tmp_path, make, reason):
    path = tmp_path / "cifar10.npz"
    make(path)
    monkeypatch.setenv("DENOISE_DATA", str(path))
    with pytest.raises(common.Halt, match=reason) as refusal:
        common.load_data()
    assert str(path) in str(refusal.value)
    assert "Expected is an npz file with the arrays x_train and x_test" in str(refusal.value)


def test_no_photograph_serves_two_purposes(monkeypatch):
    monkeypatch.setenv("DENOISE_DATA", "photos")
    data = common.load_data()
    assert data.name == "photographs"
    assert data.train.dtype == data.test.dtype == np.uint8
    assert data.train.shape[1:] == data.test.shape[1:] == (32, 32, 3)
    chelsea, coffee = skimage.data.chelsea(), skimage.data.coffee()
    assert occurs_in(data.test[0], chelsea) and occurs_in(data.train[0], coffee)
    assert len({*common.TRAIN_PHOTOS, *common.TEST_PHOTOS, "astronaut"}) == 6


def occurs_in(patch, photo):
    rows = np.lib.stride_tricks.sliding_window_view(photo, (32, 3), axis=(1, 2))[:, :, 0]
    return (rows == patch[0]).all(axis=(2, 3)).any()


def test_keras_is_asked_by_default_and_cannot_hang(monkeypatch):
    timeouts = []

    def load_data():
        timeouts.append(socket.getdefaulttimeout())
        return (IMAGES["x_train"], None), (IMAGES["x_test"], None)

    monkeypatch.setattr(keras.datasets.cifar10, "load_data", load_data)
    before = socket.getdefaulttimeout()
    assert str(common.load_data()) == "CIFAR-10: 6 training images, 4 test images"
    assert timeouts == [30]
    assert socket.getdefaulttimeout() == before


def test_failed_download_is_announced_and_replaced_by_photographs(monkeypatch, capsys):
    def load_data():
        raise Exception("URL fetch failure on https://example.org/cifar: None -- timed out")

    monkeypatch.setattr(keras.datasets.cifar10, "load_data", load_data)
    assert common.load_data().name == "photographs"
    warning = capsys.readouterr().out
    for part in ("PHOTOGRAPHS TAKE ITS PLACE", "None -- timed out", "%env DENOISE_DATA="):
        assert part in warning


def test_quick_run_downloads_nothing(monkeypatch):
    monkeypatch.setattr(common, "QUICK", True)
    monkeypatch.setattr(keras.datasets.cifar10, "load_data", lambda: pytest.fail("it downloads"))
    data = common.load_data()
    assert data.name == "photographs"
    assert len(data.train) == common.QUICK_TRAIN_IMAGES
    assert len(data.test) == common.QUICK_TEST_IMAGES
