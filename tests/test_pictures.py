"""Pictures as files: noisy.png, reading, denoising, writing."""

import errno
import struct
import zlib

import keras
import numpy as np
import pytest
from PIL import Image

import common
from notebooks import ROOT


def network(function):
    """Return a network of any input size that applies `function` to each pixel."""
    image = keras.Input((None, None, 3))
    return keras.Model(image, keras.layers.Lambda(function)(image))


def test_noisy_png_is_the_astronaut_with_noise_of_a_tenth():
    with Image.open(ROOT / "noisy.png") as picture:
        assert (picture.format, picture.mode, picture.size) == ("PNG", "RGB", (512, 512))
        pixels = np.array(picture)
    np.testing.assert_array_equal(pixels, common.noisy_picture())
    clean = common.clean_picture()
    unsaturated = (clean > 100) & (clean < 155)
    noise = (pixels.astype(float) - clean)[unsaturated] / 255
    assert noise.std() == pytest.approx(0.1, rel=0.01)
    assert noise.mean() == pytest.approx(0, abs=0.001)


def test_missing_noisy_png_is_made_anew(tmp_path):
    np.testing.assert_array_equal(common.open_picture("noisy.png"), common.noisy_picture())
    assert (tmp_path / "noisy.png").exists()


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (37, 53)])
def test_denoise_keeps_size_and_values(shape):
    picture = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    denoised = common.denoise(network(lambda x: x), picture)
    assert denoised.dtype == np.uint8
    np.testing.assert_array_equal(denoised, picture)


def test_denoise_clips_what_leaves_the_range():
    picture = np.array([[[0, 100, 250]]], np.uint8)
    np.testing.assert_array_equal(common.denoise(network(lambda x: x + 0.1), picture),
                                  [[[26, 126, 255]]])
    np.testing.assert_array_equal(common.denoise(network(lambda x: x - 0.1), picture),
                                  [[[0, 74, 224]]])


def test_saved_picture_reads_back_the_same(tmp_path):
    picture = np.random.default_rng(0).integers(60, 90, (5, 7, 3), np.uint8)
    common.save_picture(picture, tmp_path / "out.png")
    np.testing.assert_array_equal(common.open_picture(tmp_path / "out.png"), picture)


def test_full_disk_leaves_the_old_picture_and_no_remains(monkeypatch, tmp_path):
    old = np.zeros((2, 2, 3), np.uint8)
    common.save_picture(old, tmp_path / "out.png")

    def full(self, path, **options):
        path.write_bytes(b"half a picture")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="No space left"):
        common.save_picture(old + 9, tmp_path / "out.png")
    assert [path.name for path in tmp_path.iterdir()] == ["out.png"]
    np.testing.assert_array_equal(common.open_picture(tmp_path / "out.png"), old)


def sixteen_bit_png():
    """Return a PNG file of one pixel with 16 bits a channel, which Pillow cannot write."""
    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
            + chunk(b"IDAT", zlib.compress(bytes(7))) + chunk(b"IEND", b""))


def test_photograph_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side
    Image.new("RGB", (40, 30)).save(tmp_path / "photo.jpg", exif=exif)
    assert common.open_picture("photo.jpg").shape == (40, 30, 3)


def test_pictures_that_cannot_be_used_are_refused_by_name(tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    whole = (ROOT / "noisy.png").read_bytes()
    (tmp_path / "part.png").write_bytes(whole[:len(whole) // 2])
    Image.new("RGBA", (4, 4)).save(tmp_path / "alpha.png")
    (tmp_path / "deep.png").write_bytes(sixteen_bit_png())
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "grey16.png")
    for name, reason in [("missing.png", "no picture missing.png in .*settings cell"),
                         (".", "no picture"),
                         ("text.png", "text.png cannot be read"),
                         ("part.png", "part.png cannot be read"),
                         ("alpha.png", r'colour mode RGBA.*convert\("RGB"\)'),
                         ("deep.png", r"more than 8 bits a channel \(mode RGB\).*editor"),
                         ("grey16.png", r"more than 8 bits a channel \(mode I.*\).*editor"),
                         ("no_such/noisy.png", "no picture no_such/noisy.png")]:
        with pytest.raises(common.PictureError, match=reason):
            common.open_picture(name)
