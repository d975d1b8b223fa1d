"""Pictures as files: noisy.png; what can be read and is kept; what is refused, losing nothing."""

import errno
import io
import pathlib
import struct
import zlib

import numpy as np
import pytest
import tifffile
from keras import layers
from PIL import Image, features

import common
from conftest import network_of, random_image
from notebooks import ROOT


@pytest.fixture(scope="module")
def identity():
    return network_of(layers.Identity())


@pytest.fixture(scope="module")
def brighten():
    return network_of(layers.Rescaling(1, offset=0.2))


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


def test_missing_noisy_png_is_made_anew(identity):
    np.testing.assert_array_equal(common.denoise_file(identity, "noisy.png", "out.png"),
                                  common.noisy_picture())
    assert pathlib.Path("noisy.png").exists()


def png(width, height, depth, colour_type, data, *more):
    """Return a PNG file made by hand, for what Pillow does not write."""
    def chunk(kind, body):
        return (struct.pack(">I", len(body)) + kind + body
                + struct.pack(">I", zlib.crc32(kind + body)))

    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunk(*each) for each in more)
            + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b""))


# ---- What is read, and kept ----------------------------------------------------------------------

GREY, COLOUR = random_image(9, 13), random_image(9, 13, 3)
GREY_ALPHA, COLOUR_ALPHA = random_image(9, 13, 2), random_image(9, 13, 4)
DEEP = random_image(9, 13, dtype=np.uint16)
BITS = random_image(9, 13) > 127


def palette():
    """Return a picture of 9 × 13 pixels with 4 colours, its pixels as RGB, and its indices."""
    indices, colours = random_image(9, 13) % 4, random_image(4, 3, seed=1)
    picture = Image.fromarray(indices)
    picture.putpalette(colours.tobytes())
    return picture, colours[indices], indices


def saved(pixels, name, **options):
    Image.fromarray(pixels).save(name, **options)
    return pixels


def with_palette(name):
    picture, colours, _ = palette()
    picture.save(name)
    return colours


def with_transparent_palette(name):
    picture, colours, indices = palette()
    picture.save(name, transparency=bytes([255, 0, 70, 255]))
    alpha = np.array([255, 0, 70, 255], np.uint8)[indices]
    return np.dstack([colours, alpha])


def with_one_transparent_colour(name):
    pixels = random_image(9, 13, 3) // 128
    Image.fromarray(pixels).save(name, transparency=(1, 0, 1))
    return np.dstack([pixels, np.where((pixels == (1, 0, 1)).all(axis=2), 0, 255)])


def with_one_transparent_grey(name):
    pixels = random_image(9, 13) // 64
    Image.fromarray(pixels).save(name, transparency=2)
    return np.dstack([pixels, np.where(pixels == 2, 0, 255)])


def with_one_transparent_grey_of_four(name):
    pathlib.Path(name).write_bytes(png(4, 1, 2, 0, bytes([0, 0b00011011]), (b"tRNS", b"\0\1")))
    return [[[0, 255], [85, 0], [170, 255], [255, 255]]]


def with_one_transparent_bit(name):
    pathlib.Path(name).write_bytes(png(4, 1, 1, 0, bytes([0, 0b01010000]), (b"tRNS", b"\0\1")))
    return [[[0, 255], [255, 0], [0, 255], [255, 0]]]


def one_bit(name):
    Image.fromarray(BITS).save(name)
    return np.where(BITS, 255, 0)


def animated(name):
    first, colours, _ = palette()
    first.save(name, save_all=True, append_images=[Image.fromarray(COLOUR)])
    return colours


def with_cmyk(name):
    Image.new("CMYK", (13, 9), (255, 0, 0, 0)).save(name)
    return np.full((9, 13, 3), (0, 255, 255))


def with_avif(name):
    Image.new("RGB", (13, 9), (90, 90, 90)).save(name, quality=100)
    return np.full((9, 13, 3), 90)


READ = {
    "grey.png": lambda name: saved(GREY, name),
    "grey.bmp": lambda name: saved(GREY, name),
    "grey with alpha.png": lambda name: saved(GREY_ALPHA, name),
    "colour.png": lambda name: saved(COLOUR, name),
    "colour.bmp": lambda name: saved(COLOUR, name),
    "colour.webp": lambda name: saved(COLOUR, name, lossless=True),
    "colour with alpha.png": lambda name: saved(COLOUR_ALPHA, name),
    "16 bits.png": lambda name: saved(DEEP, name),
    "palette.png": with_palette,
    "palette.bmp": with_palette,
    "palette.gif": with_palette,
    "transparent palette.png": with_transparent_palette,
    "transparent colour.png": with_one_transparent_colour,
    "transparent grey.png": with_one_transparent_grey,
    "transparent grey of four.png": with_one_transparent_grey_of_four,
    "transparent bit.png": with_one_transparent_bit,
    "one bit.png": one_bit,
    "animated.gif": animated,
    "grey.jpg": lambda name: saved(np.full((9, 13), 90, np.uint8), name),
    "colour.jpg": lambda name: saved(np.full((9, 13, 3), 90, np.uint8), name),
    "cmyk.jpg": with_cmyk,
}
if features.check("avif"):
    READ["colour.avif"] = with_avif


@pytest.mark.parametrize("name", READ)
def test_mode_is_kept_and_alpha_untouched(identity, brighten, name):
    expected = READ[name](name)
    read = common.open_picture(name)
    assert read.dtype == (np.uint16 if "16 bits" in name else np.uint8)
    np.testing.assert_array_equal(read, expected)
    for model in (identity, brighten):
        denoised = common.denoise_file(model, name, "out.png")
        assert (denoised.shape, denoised.dtype) == (read.shape, read.dtype)
        np.testing.assert_array_equal(common.open_picture("out.png"), denoised)
        if read.shape[2:] in ((2,), (4,)):
            np.testing.assert_array_equal(denoised[..., -1], read[..., -1])
        assert np.array_equal(denoised, read) == (model is identity)


@pytest.mark.parametrize("name, said", [
    ("animated.gif", "animated.gif holds several pictures; this is the first of them.\n"),
    ("cmyk.jpg", "cmyk.jpg has CMYK colours: they are converted to RGB.\n"), ("palette.gif", "")])
def test_what_is_left_out_is_said(capsys, name, said):
    READ[name](name)
    common.open_picture(name)
    assert capsys.readouterr().out == said


def test_a_picture_of_a_large_phone_is_read_without_a_warning(monkeypatch, recwarn):
    saved(COLOUR, "phone.jpg", quality=100)
    expected = np.array(Image.open("phone.jpg"))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)  # 117 pixels stand in for 200 million
    np.testing.assert_array_equal(common.open_picture("phone.jpg"), expected)
    assert Image.MAX_IMAGE_PIXELS == 40 and not recwarn.list
    assert common.MAX_PIXELS >= 250_000_000


@pytest.mark.parametrize("pixels", [GREY, COLOUR, COLOUR_ALPHA, DEEP])
def test_photograph_is_turned_upright_and_its_profile_kept(identity, pixels):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side
    saved(pixels, "photo.png", exif=exif, icc_profile=b"a profile", dpi=(300, 300))
    turned = common.denoise_file(identity, "photo.png", "out.png")
    np.testing.assert_array_equal(turned, np.rot90(pixels, -1))
    with Image.open("out.png") as written:
        assert written.info["icc_profile"] == b"a profile"
        assert written.info["dpi"] == pytest.approx((300, 300), abs=0.01)
        assert 0x0112 not in written.getexif()


@pytest.mark.parametrize("mode", ["P", "CMYK"])
def test_profile_is_left_out_where_its_colours_are_gone(identity, mode):
    picture = Image.fromarray(COLOUR).convert(mode)
    picture.save("in", "PNG" if mode == "P" else "JPEG", icc_profile=b"a profile")
    common.denoise_file(identity, "in", "out.png")
    with Image.open("out.png") as written:
        assert ("icc_profile" in written.info) == (mode == "P")


def test_upload_of_one_picture_is_its_name():
    assert common.picture_name("photo.jpg") == "photo.jpg"
    assert common.picture_name({"photo.jpg": b""}) == "photo.jpg"
    with pytest.raises(common.PictureError, match="0 files: upload one"):
        common.picture_name({})


# ---- What is refused, losing nothing -------------------------------------------------------------


def tiff(pixels, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, **options)
    return file.getvalue()


def encoded(picture, kind, **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


NOISY = (ROOT / "noisy.png").read_bytes()
PHOTO = encoded(Image.fromarray(random_image(60, 80, 3)), "JPEG")
SMALL = encoded(Image.fromarray(COLOUR), "PNG")
DATA = SMALL.index(b"IDAT") + 4  # where its pixels begin
MORE_THAN_8 = "16 bits a channel.* Save it as RGB or grey with 8"
BY_TIFFFILE = r"common.save_picture\(tifffile.imread\(['\"].*['\"]\), 'picture.png'\)"
REFUSED = {
    "16-bit colour.png": (png(1, 1, 16, 2, bytes(7)), MORE_THAN_8),
    "16-bit grey, one transparent.png": (png(1, 1, 16, 0, bytes(3), (b"tRNS", b"\0\1")),
                                         MORE_THAN_8),
    "a\\b's.tif": (tiff(GREY), BY_TIFFFILE),
    "big-endian, called.png": (tiff(GREY, byteorder=">"), BY_TIFFFILE),
    "big.tif": (tiff(GREY, bigtiff=True), BY_TIFFFILE),
    "raw with a thumbnail.nef": (tiff(GREY) + PHOTO, "a camera's raw file"),
    "raw with a thumbnail.cr3": (b"\0\0\0\x18ftypcrx " + PHOTO, "a camera's raw file"),
    "phone.heic": (b"\0\0\0\x18ftypheic" + bytes(16), "HEIC file.*pillow-heif"),
    "renamed.jpg": (b"\0\0\0\x18ftypmif1" + bytes(16), "HEIC file.*open.'renamed.jpg'"),
    "another format.ppm": (encoded(Image.new("RGB", (9, 9)), "PPM"),
                           "of another kind than PNG, JPEG"),
    "empty.png": (b"", "is damaged or of another kind"),
    "without its end.png": (NOISY[:-8], "is damaged or of another kind"),
    "half.jpg": (PHOTO[:len(PHOTO) // 2], "is damaged.*truncated"),
    "wrong checksum of the data.png": (
        SMALL[:-16] + bytes([SMALL[-16] ^ 1]) + SMALL[-15:], "checksum"),
    "wrong checksum of the header.png": (SMALL[:29] + bytes([SMALL[29] ^ 1]) + SMALL[30:],
                                         "is damaged or of another kind"),
    "wrong data.png": (SMALL[:DATA + 9] + bytes([SMALL[DATA + 9] ^ 1]) + SMALL[DATA + 10:],
                       "checksum"),
    "bomb.png": (png(60_000, 60_000, 8, 2, b""), "3,600,000,000 pixels; at most 300,000,000"),
}


def folder_content():
    return sorted(path.name for path in pathlib.Path().iterdir())


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_denoised_is_refused_and_leaves_nothing(identity, name):
    content, reason = REFUSED[name]
    pathlib.Path(name).write_bytes(content)
    with pytest.raises(common.PictureError, match=reason) as caught:
        common.denoise_file(identity, name, "out.png")
    assert name.partition(",")[0] in str(caught.value) and "\n" not in str(caught.value)
    assert "object at" not in str(caught.value)
    assert folder_content() == [name]
    assert pathlib.Path(name).read_bytes() == content


@pytest.mark.parametrize("source, target, reason", [
    ("missing.png", "out.png", "no picture file missing.png in .*PICTURE"),
    ("no_such/noisy.png", "out.png", "no picture file no_such/noisy.png"),
    ("folder", "out.png", "no picture file folder in"),
    ("here.png", "no_such/out.png", "no folder no_such"),
    ("here.png", "out.jpg", "out.jpg is to be a PNG file"),
    ("here.png", "folder.png", "folder.png cannot be written: Is a directory"),
    ("here.png", "here.png", "here.png is the noisy picture"),
    ("here.png", "folder/../here.png", "here.png is the noisy picture"),
    ("here.png", "link.png", "link.png is the noisy picture"),
    ("noisy.png", "./noisy.png", "noisy.png is the noisy picture"),
    ("n" * 300 + ".png", "out.png", "n+.png cannot be read: File name too long"),
    ("here.png", "n" * 300 + ".png", "n+.png cannot be written: File name too long"),
    ("here.png", "out\0.png", "out\0.png cannot be written: .*null"),
])
def test_names_that_cannot_be_used_are_refused_and_leave_nothing(
        identity, source, target, reason):
    saved(COLOUR, "here.png")
    pathlib.Path("link.png").symlink_to("here.png")
    for folder in ("folder", "folder.png"):
        pathlib.Path(folder).mkdir()
    before = folder_content(), pathlib.Path("here.png").read_bytes()
    with pytest.raises(common.PictureError, match=reason) as caught:
        common.denoise_file(identity, source, target)
    assert "\n" not in str(caught.value)
    assert (folder_content(), pathlib.Path("here.png").read_bytes()) == before


def test_full_disk_leaves_the_old_result_and_no_remains(monkeypatch, identity):
    saved(COLOUR, "in.png")
    common.denoise_file(identity, "in.png", "out.png")

    def full(self, path, **options):
        path.write_bytes(b"half a picture")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(common.PictureError, match="out.png cannot be written.*No space left"):
        common.denoise_file(network_of(layers.Rescaling(0.5)), "in.png", "out.png")
    assert folder_content() == ["in.png", "out.png"]
    np.testing.assert_array_equal(common.open_picture("out.png"), COLOUR)


@pytest.mark.parametrize("method", ["read_bytes", "is_file"])  # the file, or its folder, is locked
def test_unreadable_file_is_named_and_leaves_nothing(monkeypatch, identity, method):
    saved(COLOUR, "in.png")

    def locked(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    with monkeypatch.context() as locking:
        locking.setattr(pathlib.Path, method, locked)
        with pytest.raises(common.PictureError, match="in.png cannot be read: Permission"):
            common.open_picture("in.png")
    assert folder_content() == ["in.png"]


def test_a_name_that_begins_with_a_tilde_is_an_ordinary_name(identity):
    saved(COLOUR, "~nobody.png")
    common.denoise_file(identity, "~nobody.png", "~out.png")
    np.testing.assert_array_equal(common.open_picture("~out.png"), COLOUR)
