"""Pictures as files: noisy.png; what can be read and is kept; what is refused, losing nothing."""

import pathlib

import numpy as np
import pytest
from PIL import Image

import common
from conftest import random_image
from notebooks import ROOT


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


# ---- What is read, and kept ----------------------------------------------------------------------

GREY, COLOUR = random_image(9, 13), random_image(9, 13, 3)
COLOUR_ALPHA, DEEP = random_image(9, 13, 4), random_image(9, 13, dtype=np.uint16)


def saved(pixels, name, **options):
    Image.fromarray(pixels).save(name, **options)
    return pixels


def with_palette(name):
    picture = Image.new("P", (13, 9), 1)
    picture.putpalette([0, 0, 0, 10, 20, 30])
    picture.save(name)
    return np.full((9, 13, 3), (10, 20, 30))


def with_one_transparent_grey(name):
    pixels = random_image(9, 13) // 64
    Image.fromarray(pixels).save(name, transparency=2)
    return np.dstack([pixels, np.where(pixels == 2, 0, 255)])


def with_cmyk(name):
    Image.new("CMYK", (13, 9), (255, 0, 0, 0)).save(name)
    return np.full((9, 13, 3), (0, 255, 255))


READ = {
    "grey.png": lambda name: saved(GREY, name),
    "colour.webp": lambda name: saved(COLOUR, name, lossless=True),
    "16 bits.png": lambda name: saved(DEEP, name),
    "palette.gif": with_palette,
    "transparent grey.png": with_one_transparent_grey,
    "cmyk.jpg": with_cmyk,
}


@pytest.mark.parametrize("name", READ)
def test_pixels_are_read_as_they_are_and_written_again(name):
    expected = READ[name](name)
    read, profile = common.open_picture(name)
    assert read.dtype == (np.uint16 if "16 bits" in name else np.uint8)
    np.testing.assert_array_equal(read, expected)
    common.save_picture(read, "out.png", profile)
    np.testing.assert_array_equal(common.open_picture("out.png")[0], read)


@pytest.mark.parametrize("pixels", [GREY, COLOUR, COLOUR_ALPHA, DEEP])
def test_photograph_is_turned_upright_and_its_profile_kept(pixels):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side
    saved(pixels, "photo.png", exif=exif, icc_profile=b"a profile")
    turned, profile = common.open_picture("photo.png")
    np.testing.assert_array_equal(turned, np.rot90(pixels, -1))
    common.save_picture(turned, "out.png", profile)
    with Image.open("out.png") as written:
        assert written.info["icc_profile"] == b"a profile"
        assert 0x0112 not in written.getexif()


def test_exif_data_that_cannot_be_used_do_not_cost_the_picture():
    saved(COLOUR, "photo.png", exif=b"Exif\0\0 garbage")
    np.testing.assert_array_equal(common.open_picture("photo.png")[0], COLOUR)


def test_a_picture_of_a_large_phone_is_read_without_a_word(monkeypatch, recwarn, capsys):
    saved(COLOUR, "phone.jpg", quality=100)
    expected = np.array(Image.open("phone.jpg"))
    Image.fromarray(COLOUR).save("two.jpg", "MPO", save_all=True, quality=100,
                                 append_images=[Image.fromarray(COLOUR)])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # 117 pixels stand in for 100 million
    for name in ("phone.jpg", "two.jpg"):
        np.testing.assert_array_equal(common.open_picture(name)[0], expected)
    assert not recwarn.list and capsys.readouterr().out == ""


# ---- What is refused, losing nothing -------------------------------------------------------------


def tiff():
    Image.fromarray(GREY).save("picture", "TIFF")


def half():
    saved(random_image(60, 80, 3), "whole.jpg")
    pathlib.Path("picture").write_bytes(pathlib.Path("whole.jpg").read_bytes()[:2000])


@pytest.mark.parametrize("make, reason", [(tiff, "cannot identify"), (half, "truncated")])
def test_what_cannot_be_read_is_refused_in_one_line_that_says_what_can(make, reason):
    make()
    with pytest.raises(common.Halt, match=f"picture cannot be read: .*{reason}.*PNG, "
                       "JPEG.*save other kinds .TIFF, HEIC.* as PNG in an image editor") as refusal:
        common.open_picture("picture")
    assert "\n" not in str(refusal.value)
    with pytest.raises(common.Halt, match="There is no picture cat.jpg in .*: put it there"):
        common.open_picture("cat.jpg")


def test_full_disk_leaves_the_old_result_and_no_remains(monkeypatch):
    common.save_picture(COLOUR, "out.png")

    def full(self, path, **options):
        path.write_bytes(b"half a picture")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", full)
        with pytest.raises(common.Halt, match="out.png cannot be written: .*No space left"):
            common.save_picture(GREY, "out.png")
    assert [path.name for path in pathlib.Path().iterdir()] == ["out.png"]
    np.testing.assert_array_equal(common.open_picture("out.png")[0], COLOUR)


def test_a_file_that_another_program_looks_at_is_waited_for(monkeypatch):
    replace, tries = common.os.replace, []

    def busy(*paths):
        tries.append(paths)
        if len(tries) < 3:
            raise PermissionError(13, "Access is denied")
        replace(*paths)

    monkeypatch.setattr(common.os, "replace", busy)
    monkeypatch.setattr(common.time, "sleep", lambda seconds: None)
    common.save_picture(COLOUR, "out.png")
    assert [path.name for path in pathlib.Path().iterdir()] == ["out.png"]
