"""What Model1.ipynb, Model2.ipynb and Model3.ipynb share, in the order in which they use it.

Images are NumPy arrays in the order (number, height, width, 3). Files and data sets hold them as
uint8 from 0 to 255; networks and metrics take float32 from 0 to 1. A picture, one image of any
size, may also be grey, have an alpha channel (transparency), or be uint16.
"""

import contextlib
import datetime
import hashlib
import importlib
import io
import json
import logging
import os
import pathlib
import re
import signal
import socket
import sys
import time
import urllib.request
from typing import NamedTuple

import IPython
import matplotlib.pyplot as plt
import numpy as np
import pywt
import skimage.data
import skimage.filters
import skimage.metrics
from IPython.display import Image as ShownImage
from IPython.display import display
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image, ImageOps, UnidentifiedImageError

# ---- Keras ---------------------------------------------------------------------------------------
#
# It is imported without the chatter of its backend, and set up the same for all users.


@contextlib.contextmanager
def _silenced_stderr():
    """Drop what native code writes to the process's standard error.

    TensorFlow prints lines about oneDNN and CUDA while it starts, past Python and whatever its
    own log level is. Exceptions are not affected.
    """
    try:
        kept = os.dup(2)
    except OSError:  # closed: nobody reads it
        yield
        return
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
with _silenced_stderr():
    import keras

    DEVICES = keras.distribution.list_devices()
keras.config.set_image_data_format("channels_last")  # whatever the user's keras.json says
keras.config.set_floatx("float32")
keras.config.set_epsilon(1e-7)
# TensorFlow warns when it traces anew, as it has to for each new network and size of picture.
logging.getLogger("tensorflow").addFilter(lambda record: "retracing" not in record.getMessage())

FILES_URL = ""  # where the bundle lies on the web; the notebook sets it

# ---- Tools ---------------------------------------------------------------------------------------
#
# Small things that several sections use: an error of one line, files written whole, words.


class Halt(RuntimeError):
    """Ends a cell and the queue of cells behind it by one line, without a traceback."""

    def _render_traceback_(self):  # what IPython shows
        return [f"{type(self).__name__}: {self}"]


@contextlib.contextmanager
def atomic(path):
    """Give a temporary path that takes the place of `path` when the block ends without an error.

    A block that fails leaves `path` as it was, and nothing else.
    """
    temporary = path.with_name(f".part.{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _path(name):
    return pathlib.Path(os.path.expanduser(name))  # which leaves a ~name of nobody's as it is


def duration(seconds):
    """Return `seconds` in words: "42 s", "7 min", "3 h 05 min"."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def count(number, noun):
    """Return a number with its noun: "1 epoch", "1,200 epochs"."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


# ---- Settings that come from outside the notebook ------------------------------------------------
#
# Four environment variables, each read in one place.

VARIABLES = {"DENOISE_EPOCHS", "DENOISE_QUICK", "DENOISE_DATA", "DENOISE_CHECKPOINTS"}
QUICK_EPOCHS = 2
QUICK_TRAIN_IMAGES = 1600
QUICK_TEST_IMAGES = 200
DRIVE = pathlib.Path("/content/drive")  # where Colab mounts Google Drive


def quick_run():
    """Say whether the environment asks for a quick run: True if DENOISE_QUICK is 1.

    Raises Halt for a DENOISE_QUICK that is neither 0 nor 1.
    """
    value = os.environ.get("DENOISE_QUICK") or "0"
    if value not in ("0", "1"):
        raise Halt(f"DENOISE_QUICK is {value!r}; set it to 1 for a quick run, or unset it.")
    return value == "1"


def number_of_epochs(epochs):
    """Return and print the number of epochs to train: `epochs`, or what the environment asks for.

    DENOISE_EPOCHS replaces `epochs`; a quick run caps it at QUICK_EPOCHS.
    Raises Halt unless the number is a whole one of at least 1.
    """
    value = str(os.environ.get("DENOISE_EPOCHS") or epochs)
    if not value.isdecimal() or int(value) < 1:
        raise Halt(f"The number of epochs (EPOCHS or DENOISE_EPOCHS) is {value!r}; "
                   "it must be a whole number of at least 1.")
    planned = min(int(value), QUICK_EPOCHS) if quick_run() else int(value)
    print(f"Epochs asked for: {planned}"
          + (f" (a full run has {epochs})" if planned != epochs else ""))
    return planned


def output_path(name):
    """Return the path under which to write the file `name`: in build/ if the run is a quick one."""
    folder = pathlib.Path("build" if quick_run() else ".")
    folder.mkdir(exist_ok=True)
    return folder / name


def checkpoint_folder(folder):
    """Return where to keep checkpoints: DENOISE_CHECKPOINTS, or else `folder`.

    A quick run keeps its own in build/checkpoints, whatever is asked for. In Colab, a folder below
    /content/drive brings up the dialog that mounts Google Drive; Halt says if that was refused.
    """
    if quick_run():
        return output_path("checkpoints")
    path = _path(os.environ.get("DENOISE_CHECKPOINTS") or folder)
    if "google.colab" in sys.modules and path.is_relative_to(DRIVE):
        try:
            importlib.import_module("google.colab.drive").mount(str(DRIVE))
        except Exception as error:  # of several kinds, some of them Colab's own
            raise Halt(f"Google Drive was not mounted ({error}). Run this cell again and allow it, "
                       f'or set CHECKPOINTS = "checkpoints" to do without.') from error
    return path


def _gpus():
    return [device for device in DEVICES if not device.startswith("cpu")]


def describe_backend():
    """Return the versions and the device that the networks run on, as one line of text."""
    backend = keras.backend.backend()
    version = importlib.import_module(backend).__version__
    device = ", ".join(_gpus()) or f"CPU with {os.cpu_count()} cores"
    return f"Keras {keras.__version__} on {backend} {version}, {device}"


def print_setup():
    """Print the versions, the device and, if it is a quick one, the kind of run.

    Raises Halt for an environment variable that looks like one of ours and is not.
    """
    unknown = {name for name in os.environ if name.startswith("DENOISE_")} - VARIABLES
    if unknown:
        raise Halt(f"There is no setting {', '.join(sorted(unknown))}. The environment "
                   f"variables are {', '.join(sorted(VARIABLES))}.")
    print(f"Python {sys.version.split()[0]}, NumPy {np.__version__}, {describe_backend()}")
    if quick_run():
        print("Quick run (DENOISE_QUICK=1): few images and epochs, every file goes to build/.\n"
              "It shows that the notebook works, not what the network can do.")


# ---- Data ----------------------------------------------------------------------------------------
#
# CIFAR-10, or patches of photographs in its place.

PATCH_SIZE = 32
TRAIN_PHOTOS = ("coffee", "hubble_deep_field", "retina")
TEST_PHOTOS = ("chelsea", "rocket")
FULL_SIZE = {"CIFAR-10": (50_000, 10_000)}


class Data(NamedTuple):
    """A data set: its name, and its images as uint8 arrays (number, 32, 32, 3)."""

    name: str
    train: np.ndarray
    test: np.ndarray

    def __str__(self):
        counts = [f"{len(images):,}" for images in (self.train, self.test)]
        for i, full in enumerate(FULL_SIZE.get(self.name, ())):
            if counts[i] != f"{full:,}":
                counts[i] += f" of {full:,}"
        return f"{self.name}: {counts[0]} training images, {counts[1]} test images"


def load_data():
    """Load the images to train and test on.

    The environment variable DENOISE_DATA names an npz file with the arrays x_train and x_test, or
    is the word "photos": 32×32 patches of photographs that scikit-image installs. Without it,
    CIFAR-10 comes from Keras: from its cache or, unless the run is a quick one, from the network;
    where that fails, the photographs take its place and a framed warning says so.

    Returns a Data. Raises Halt if the named npz is not what it should be.
    """
    source = os.environ.get("DENOISE_DATA")
    if source == "photos":
        data = _photographs()
    elif source:
        data = _read_npz(_path(source))
    elif quick_run() and not all(path.exists() for path in _keras_cache()):
        data = _photographs()
    else:
        data = _cifar10_or_photographs()
    if quick_run():
        data = Data(data.name, data.train[:QUICK_TRAIN_IMAGES], data.test[:QUICK_TEST_IMAGES])
    return data


def _read_npz(path):
    name = "CIFAR-10" if path.stem.lower() in ("cifar10", "cifar-10") else path.stem
    try:
        with np.load(path, allow_pickle=False) as file:
            data = Data(name, file["x_train"], file["x_test"])
        for images in data[1:]:
            if (images.dtype, images.shape[1:]) != (np.uint8, (PATCH_SIZE, PATCH_SIZE, 3)):
                raise ValueError(f"it holds {images.dtype} of shape {images.shape}")
            if not len(images):
                raise ValueError("it holds no images")
        return data
    except Exception as error:  # a damaged zip file raises errors of many kinds
        raise Halt(f"DENOISE_DATA names {path}, which cannot be used: {error}. Expected is an npz "
                   "file with the arrays x_train and x_test, uint8, of shape (number, 32, 32, 3), "
                   "or the word photos.") from error


def _keras_cache():
    """Return where Keras keeps CIFAR-10: the archive, without which it downloads, and a batch."""
    home = _path(os.environ.get("KERAS_HOME") or "~/.keras") / "datasets"
    return (home / "cifar-10-batches-py-target_archive",
            home / "cifar-10-batches-py-target" / "cifar-10-batches-py" / "test_batch")


def _cifar10_or_photographs():
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(30)  # Keras sets none: a silent server would hang the notebook
    try:
        (train, _), (test, _) = keras.datasets.cifar10.load_data()
        return Data("CIFAR-10", train, test)
    except Exception as error:  # Keras raises a bare Exception for a failed download
        _print_framed(
            "CIFAR-10 COULD NOT BE LOADED: PHOTOGRAPHS TAKE ITS PLACE",
            "Tried: keras.datasets.cifar10.load_data(), that is Keras's cache, then its download.",
            f"Reason: {error}",
            f"If the cache is damaged, delete {_keras_cache()[0].parent / 'cifar-10-batches-py*'}.",
            "The figures below are not CIFAR-10's. To give it by hand, save it as cifar10.npz",
            "with the arrays x_train and x_test (uint8, number × 32 × 32 × 3), set the environment",
            "variable DENOISE_DATA to its path, for instance in a cell at the top, by",
            "%env DENOISE_DATA=…, and run all cells again.")
        return _photographs()
    finally:
        socket.setdefaulttimeout(timeout)


def _print_framed(*lines):
    rule = "!" * 92
    print(rule, *(f"!! {line}" for line in lines), rule, sep="\n")


def _photographs():
    train = _photo_patches(TRAIN_PHOTOS, 10_000, seed=1)
    test = _photo_patches(TEST_PHOTOS, 2_000, seed=2)
    return Data("photographs", train, test)


def _photo_patches(names, number, seed):
    photos = [getattr(skimage.data, name)() for name in names]
    rng = np.random.default_rng(seed)
    patches = np.empty((number, PATCH_SIZE, PATCH_SIZE, 3), np.uint8)
    for i in range(number):
        photo = photos[i % len(photos)]  # in turn, so that the first few sample every photograph
        row, column = rng.integers(np.array(photo.shape[:2]) - PATCH_SIZE + 1)
        patches[i] = photo[row:row + PATCH_SIZE, column:column + PATCH_SIZE]
    return patches


# ---- Noise and metrics ---------------------------------------------------------------------------
#
# Images as numbers from 0 to 1: their noise, and how close they are to clean ones.


def to_float(images):
    """Return uint8 or uint16 `images` of any shape as float32 in [0, 1]; float ones as float32."""
    if np.issubdtype(images.dtype, np.floating):
        return images.astype(np.float32)
    return images.astype(np.float32) / np.float32(np.iinfo(images.dtype).max)


def from_float(images, dtype):
    """Return float `images` of any shape as `dtype` (uint8, uint16 or float), clipped to [0, 1].

    Whole numbers are the values times 255 (uint8) or 65,535 (uint16), rounded.
    """
    images = np.clip(images, 0, 1)
    if np.issubdtype(dtype, np.floating):
        return images.astype(dtype)
    return np.round(images * np.iinfo(dtype).max).astype(dtype)


def to_uint8(images):
    """Return float `images` of any shape as uint8: clipped to [0, 1], times 255, rounded."""
    return from_float(images, np.uint8)


def add_noise(images, noise_std, seed):
    """Add Gaussian noise to float32 `images` in [0, 1], the same noise for the same `seed`.

    `noise_std` is its standard deviation, in units of the range [0, 1]. The sum is float32 and is
    not clipped, as in Keras's GaussianNoise layer, so it leaves [0, 1] here and there.
    """
    noise = np.random.default_rng(seed).standard_normal(images.shape, dtype=np.float32)
    return images + np.float32(noise_std) * noise


def psnr(clean, images):
    """Return the peak signal-to-noise ratio of `images` against `clean`, in decibels.

    Both have the same shape, and are float in [0, 1] or both uint8 or both uint16; else ValueError
    is raised. PSNR = 10·log10(peak² / MSE), with one mean squared error over all that is given
    (scikit-image's formula).
    """
    whole = clean.dtype == images.dtype and clean.dtype in (np.uint8, np.uint16)
    if not whole and clean.dtype.kind + images.dtype.kind != "ff":
        raise ValueError(f"PSNR needs images of one range, not {clean.dtype} and {images.dtype}.")
    clean, images = to_float(clean), to_float(images)
    return float(skimage.metrics.peak_signal_noise_ratio(clean, images, data_range=1))


class Scores(NamedTuple):
    """How close images are to the clean ones.

    psnr: PSNR over the whole set, in dB: of the mean squared error over all images.
    image_psnr: PSNR of each image, in dB, array (number,); its mean is always the higher.
    image_ssim: structural similarity of each image, at most 1, array (number,).
    """

    psnr: float
    image_psnr: np.ndarray
    image_ssim: np.ndarray


def score(clean, images):
    """Score float32 `images` (number, height, width, 3) against the `clean` ones. Returns Scores.

    SSIM is scikit-image's, per image, with a 7×7 window: Wang et al., IEEE TIP 2004.
    """
    pairs = list(zip(clean, images))
    image_psnr = np.array([psnr(c, i) for c, i in pairs])
    image_ssim = np.array([
        skimage.metrics.structural_similarity(c, i, data_range=1, channel_axis=-1)
        for c, i in pairs
    ])
    return Scores(psnr(clean, images), image_psnr, image_ssim)


# ---- Training ------------------------------------------------------------------------------------
#
# What the notebook hands to fit(): the optimizer, the batches, and two callbacks. One keeps the run
# in files, one shows it.

POINTS_PER_EPOCH = 20  # of the curve of the training loss
STEPS_PER_CALL = 16 if _gpus() else 1  # so that a GPU does not wait for Python after every step
REFERENCE = pathlib.Path("weights")


@keras.saving.register_keras_serializable("denoising")
class Muon(keras.optimizers.Adam):
    """Muon for the kernels between wide layers, Adam for all other variables, at one rate.

    Adam scales each weight's step separately. Muon takes a kernel (height, width, in, out) for
    one matrix (height·width·in, out) and makes its step nearly orthogonal, that is, equally long in
    all directions: with the momentum M ← μM + g, the step is orthogonalize(g + μM), times
    0.2·√max(height·width·in, out), times the learning rate. There is no weight decay.
    Sources: K. Jordan et al., "Muon" (2024); J. Liu et al., arXiv 2502.16982, for the factor.

    `momentum` is μ. A kernel is wide with at least 16 channels in and out. `options` are Adam's.
    """

    def __init__(self, learning_rate=4e-3, momentum=0.9, **options):
        super().__init__(learning_rate, **options)
        self.momentum = momentum

    def update_step(self, gradient, variable, learning_rate):
        if len(variable.shape) != 4 or min(variable.shape[2:]) < 16:
            super().update_step(gradient, variable, learning_rate)
            return
        momentum = self._momentums[self._get_variable_index(variable)]  # Adam's place for it
        self.assign(momentum, self.momentum * momentum + gradient)
        matrix = keras.ops.reshape(gradient + self.momentum * momentum, (-1, variable.shape[3]))
        step = learning_rate * 0.2 * max(matrix.shape) ** 0.5 * orthogonalize(matrix)
        self.assign_sub(variable, keras.ops.reshape(step, variable.shape))

    def get_config(self):
        return super().get_config() | {"momentum": self.momentum}


def orthogonalize(matrix):
    """Return the float `matrix` (n, m) with its singular values brought near 1.

    By five Newton-Schulz steps with the coefficients of K. Jordan et al.
    """
    x = matrix / (keras.ops.norm(matrix) + 1e-7)
    for _ in range(5):
        gram = keras.ops.matmul(keras.ops.transpose(x), x)
        factor = -4.7750 * gram + 2.0315 * keras.ops.matmul(gram, gram)
        x = 3.4445 * x + keras.ops.matmul(x, factor)
    return x


class Batches(keras.utils.PyDataset):
    """Batches of uint8 `images` (number, height, width, 3), in an order of the seed and the epoch.

    Each is (clean, clean), float32 in [0, 1]: the network makes its own noise, so the clean images
    are both its input and its target. Only the batches at hand are held as float.
    """

    def __init__(self, images, batch_size, seed):
        # Two threads make batches ahead. With the default of one, TensorFlow's tuner of the input
        # sleeps on when an epoch ends, and training waits until it wakes up: up to a minute.
        super().__init__(workers=2, max_queue_size=2 * STEPS_PER_CALL)
        self.images, self.batch_size, self.seed = images, batch_size, seed
        self.shuffle(epoch=0)

    def shuffle(self, epoch):
        """Put the images into the order of this `epoch`, counted from 0."""
        self.order = np.random.default_rng([self.seed, epoch]).permutation(len(self.images))

    def __len__(self):
        return -(-len(self.images) // self.batch_size)

    def __getitem__(self, index):
        start = index * self.batch_size
        batch = to_float(self.images[self.order[start:start + self.batch_size]])
        return batch, batch


class Run(NamedTuple):
    """What a training is and how it went; PSNR is over the whole set, in dB.

    `loss`, `psnr` (of the validation images) and `seconds` have one value an epoch, `curve` has
    pairs of epoch, as a fraction, and training loss. `date` is the day on which it began;
    `picture_psnr`, of noisy.png denoised, stands in weights/ alone.
    """

    model: str
    data: str
    train_images: int
    validation_images: int
    epochs: int
    batch_size: int
    noise_std: float
    seed: int
    noisy_psnr: float
    date: str
    backend: str
    loss: list
    psnr: list
    seconds: list
    curve: list
    picture_psnr: float | None = None

    def __str__(self):
        return (f"Trained for {count(len(self.loss), 'epoch')} on {self.data} "
                f"({self.train_images:,} images) in {duration(sum(self.seconds))},\n"
                f"begun on {self.date} with {self.backend}.\n"
                f"Loss {self.loss[-1]:.6f}; PSNR {self.psnr[-1]:.2f} dB on "
                f"{self.validation_images:,} validation images.")


class Checkpoints(keras.callbacks.Callback):
    """Keeps a run in files in `folder`, one an epoch, and lets fit() go on where they end.

    `model` is compiled, with the mean squared error as its loss. `batches` are Batches of the
    training images, `validation` is a pair of noisy and clean images, float32 (number, height,
    width, 3), `data` is the data set's name, `epochs` the number of epochs and `noise_std` the
    strength of the noise. `training` is "resume": a run that was stopped or killed goes on after
    its last finished epoch, and a finished one is not trained again; "restart": it begins anew, and
    the files that it has so far go when its first epoch has finished; or "reference": the network
    in weights/ is loaded and nothing is trained.

    `run` is the Run, and `epoch` is for fit()'s `initial_epoch`. fit() takes the same batches, with
    shuffle=False since they are in their order, and the same validation. Raises Halt for another
    loss or `training`, for a network that another run has trained, for unusable weights/, and,
    here and in fit(), where a checkpoint cannot be written.
    """

    def __init__(self, model, batches, validation, *, data, epochs, noise_std, training="resume",
                 folder="checkpoints"):
        super().__init__()
        self.set_model(model)
        self.batches, self.steps_per_call = batches, model.steps_per_execution
        noisy, clean = validation
        self.run = Run(model.name, data, len(batches.images), len(clean), epochs,
                       batches.batch_size, noise_std, batches.seed, psnr(clean, noisy),
                       datetime.date.today().isoformat(), describe_backend(), [], [], [], [])
        if training == "reference":
            self.kept, self.run, self.epoch = None, load_reference(model, self.run), epochs
            return
        if training not in ("resume", "restart"):
            raise Halt(f'TRAINING is {training!r}; it must be "resume", "restart" or "reference".')
        if model.loss != "mse" or model.losses:
            raise Halt('The PSNR is computed from the loss: compile with loss="mse", and let '
                       "nothing else add to it.")
        model.evaluate(noisy[:32], clean[:32], verbose=0)  # builds it: on JAX, fit() loses a batch
        model.optimizer.build(model.trainable_variables)
        self.stem = pathlib.Path(folder) / f"{model.name}-{_key(model, self.run, batches, clean)}"
        self.kept = self._newest() if training == "resume" else None
        self._begin()

    def _begin(self):
        if self.kept:
            self.go_back()
        elif hasattr(self.model, "has_been_trained") or int(self.model.optimizer.iterations):
            raise Halt("This network has been trained before, in another run. To train anew, run "
                       "the cell that builds it and all cells after that one.")
        else:
            self._keep()  # now, so that a full disk shows before the first epoch
        self.model.has_been_trained = True
        self.epoch = len(self.run.loss)
        before, now = self.run.backend, describe_backend()
        if self.epoch < self.run.epochs and now not in before:
            self.run = self.run._replace(backend=f"{before}, then {now}")

    def go_back(self):
        """Take the run and the network back to the end of the last finished epoch."""
        if self.kept:
            for i, variable in enumerate(self._variables()):
                variable.assign(self.kept[f"variable{i:03d}"])
            self.run = Run(**json.loads(str(self.kept["run"])))
            self._set_noise(len(self.run.loss))
            self.model.reset_metrics()

    def _variables(self):
        return self.model.weights + self.model.optimizer.variables

    def _set_noise(self, epoch):
        generators = [variable for variable in self.model.variables
                      if variable.path.endswith("seed_generator_state")]
        for i, state in enumerate(generators):
            rng = np.random.default_rng([self.batches.seed, epoch, i])
            state.assign(rng.integers(2**31, size=2))

    def on_epoch_begin(self, epoch, logs=None):
        self.started, self.finished, self.step = time.perf_counter(), epoch, 0
        self.seen, self.total = 0, 0.0  # images and the sum of their losses at the last point
        self.batches.shuffle(epoch)  # fit() starts the threads that make batches after this
        self._set_noise(epoch)

    def on_train_batch_end(self, batch, logs=None):
        steps = len(self.batches)
        self.step = min(self.step + self.steps_per_call, steps)
        seen = min(self.step * self.batches.batch_size, len(self.batches.images))
        if (seen - self.seen) * POINTS_PER_EPOCH >= len(self.batches.images) or self.step == steps:
            total = float(logs["loss"]) * seen  # Keras's is the mean since the epoch began
            recent = (total - self.total) / (seen - self.seen)
            self.run.curve.append([self.finished + self.step / steps, recent])
            self.seen, self.total = seen, total

    def on_epoch_end(self, epoch, logs=None):
        self.run.loss.append(float(logs["loss"]))
        self.run.psnr.append(float(-10 * np.log10(logs["val_loss"])))
        self.run.seconds.append(time.perf_counter() - self.started)
        self._keep()

    def _keep(self):
        """Write the checkpoint of an epoch. All others go, but for that of the epoch before."""
        epoch = len(self.run.loss)
        path, before = (self.stem.with_name(f"{self.stem.name}.{each:05d}.npz")
                        for each in (epoch, epoch - 1))
        self.kept = {f"variable{i:03d}": np.array(keras.ops.convert_to_numpy(variable))
                     for i, variable in enumerate(self._variables())}
        self.kept["run"] = json.dumps(self.run._asdict())
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic(path) as temporary, open(temporary, "wb") as file:
                np.savez(file, **self.kept)
                file.flush()
                os.fsync(file.fileno())  # a power cut must not leave an empty file by that name
            for other in set(self._saved()) - {path, before} if epoch else ():
                other.unlink()
        except OSError as error:
            raise Halt(f"The checkpoint {path} cannot be written: {error}. Make room there, or "
                       f"move the files {self.stem.name}.* to another folder and name it in "
                       'CHECKPOINTS. Then run all cells again with TRAINING = "resume".') from error

    def _saved(self):
        return sorted(self.stem.parent.glob(f"{self.stem.name}.*.npz"), reverse=True)

    def _newest(self):
        """Read the newest sound checkpoint, or return None. Damaged ones are set aside."""
        for path in self._saved():
            content = io.BytesIO(path.read_bytes())  # if this fails, it need not be damaged
            try:
                with np.load(content, allow_pickle=False) as arrays:
                    return dict(arrays)
            except Exception as error:  # a damaged zip file raises errors of many kinds
                aside = path.with_suffix(".damaged")
                os.replace(path, aside)
                print(f"A checkpoint is damaged ({error}) and was set aside as {aside}.")
        return None


def _key(model, run, batches, clean):
    """Return a name made of everything that shapes a run, so that no other finds its files."""
    optimizer = keras.optimizers.serialize(model.optimizer)
    del optimizer["config"]["name"]  # Keras counts: adam, adam_1, … each time the cell is run
    shape = json.dumps([model.get_config(), optimizer, run.epochs, run.batch_size, run.noise_std,
                        run.seed], sort_keys=True)
    # Names of layers, likewise: add, add_1, …. They stand as "name": "add" and as ["add", 0, 0].
    names = {f'"{layer.get("name", layer["config"].get("name"))}"': f'"layer {i}"'
             for i, layer in enumerate(model.get_config().get("layers", []))}
    shape = re.sub(r'(?<="name": )"[^"]*"|(?<=\[)"[^"]*"(?=, \d+, \d+\])',
                   lambda found: names.get(found[0], found[0]), shape)
    key = hashlib.sha256(shape.encode())
    key.update(np.ascontiguousarray(batches.images))
    key.update(np.ascontiguousarray(clean))
    return key.hexdigest()[:16]


def finished_runs(run, folder):
    """Return this notebook's `run` and the finished ones of the other two models, by their names.

    Those are the newest among the checkpoints in `folder` with the same settings and data.
    """
    same = ("data", "train_images", "epochs", "batch_size", "noise_std", "seed")
    runs = {}
    paths = pathlib.Path(folder).glob("Model*.npz")
    for path in sorted(paths, key=lambda path: path.stat().st_mtime):
        try:
            with np.load(path, allow_pickle=False) as arrays:
                found = Run(**json.loads(str(arrays["run"])))
        except Exception:  # a damaged zip file raises errors of many kinds; Checkpoints reports it
            continue
        if found.model in NETWORK_COLOURS and len(found.loss) == found.epochs and all(
                getattr(found, field) == getattr(run, field) for field in same):
            runs[found.model] = found
    return dict(sorted((runs | {run.model: run}).items()))


def load_reference(model, run):
    """Load weights/ModelX.weights.h5 into `model`, which is named ModelX. Returns its Run.

    `run` is the Run at hand. Files that are missing come from FILES_URL. Raises Halt if they cannot
    be had or are damaged, come from other settings, or do not denoise noisy.png as they did in
    their network.
    """
    found = read_run(model.name)
    for name in ("batch_size", "noise_std", "seed"):
        here, there = getattr(run, name), getattr(found, name)
        if here != there:
            raise Halt(f"The weights of {model.name} come from a run with {name.upper()} = "
                       f"{there}; here it is {here}. Set it back, or set TRAINING = 'resume' "
                       "to train.")
    model.has_been_trained = True
    with _shipped(f"{model.name}.weights.h5") as path:
        # A network without an optimizer, or Keras warns that the file has none.
        keras.Model(model.input, model.output).load_weights(path)
        reached = psnr(clean_picture(), denoise(model, noisy_picture()))
        if abs(reached - found.picture_psnr) > 0.01:
            raise ValueError(f"here it brings noisy.png to {reached:.2f} dB, not to "
                             f"{found.picture_psnr:.2f} dB: it belongs to another network")
    print(f"Loaded from {REFERENCE}/: nothing is trained here. The run that the weights come from:")
    return found


def read_run(name):
    """Return the Run of the weights of the model `name`. Raises Halt if it cannot be read."""
    with _shipped(f"{name}.json") as path:
        run = Run(**json.loads(path.read_text(encoding="utf-8")))
        if not len(run.loss) == len(run.psnr) == run.epochs:
            raise ValueError(f"{len(run.psnr)} of {run.epochs} epochs are in it")
        return run


@contextlib.contextmanager
def _shipped(name):
    """Give the path of a file of weights/. A missing one is fetched, and kept once it was read."""
    path = origin = REFERENCE / name
    with contextlib.ExitStack() as stack:
        if not path.is_file():
            if not FILES_URL:
                raise Halt(f"There is no {path}. Put the folder {REFERENCE} with the files of "
                           "Model1 to Model3 beside the notebook (in Colab, in the Files pane), or "
                           'set TRAINING = "resume" to train.')
            origin = f"{FILES_URL}/{REFERENCE.name}/{name}"
            REFERENCE.mkdir(exist_ok=True)
            path = stack.enter_context(atomic(path))
            try:
                with urllib.request.urlopen(origin, timeout=30) as answer:
                    path.write_bytes(answer.read())
            except Exception as error:  # no network, no such file, a connection that breaks off
                raise Halt(f"{origin} cannot be fetched: {error}") from error
        try:
            yield path
        except Exception as error:  # h5py and Keras raise errors of many kinds, some pages long
            reason = str(error).partition("\n")[0]
            raise Halt(f"{origin} is damaged or does not fit this network ({reason}). Bring the "
                       'right file there, or set TRAINING = "resume" to train.') from error


class LiveDisplay(keras.callbacks.Callback):
    """Shows a run while it trains: how far it is, its curve, and a crop of `picture` denoised.

    fit() goes into a `with` block of it, and it comes after `checkpoints` in fit()'s callbacks. If
    Stop ends fit(), the network is taken back to its last finished epoch; if there is none, the
    block raises Halt. `picture` is one that denoise() takes. Outside a notebook, it prints a line
    an epoch and draws nothing.
    """

    def __init__(self, checkpoints, picture):
        super().__init__()
        self.set_model(checkpoints.model)
        self.checkpoints, self.crop = checkpoints, picture[_crop(picture.shape, most=128)]
        self.in_notebook = IPython.get_ipython() is not None
        self.first = None  # step and time of the first text: what came before it compiled
        self.next_text = self.next_figure = 0.0

    def __enter__(self):
        run = self.checkpoints.run
        if self.in_notebook:
            self.text, self.figure = (display({"text/plain": ""}, raw=True, display_id=True)
                                      for _ in range(2))
        self._show(f"{len(run.loss)} of {count(run.epochs, 'epoch')} done …")
        self._draw()
        self.next_figure = time.perf_counter() + 3  # that one compiled: its time says nothing
        return self

    def __exit__(self, kind, error, trace):
        if kind is KeyboardInterrupt:
            handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # several clicks end as one does
            try:
                self.checkpoints.go_back()
                time.sleep(1)
            finally:
                signal.signal(signal.SIGINT, handler)
        elif kind:
            return False
        run = self.checkpoints.run
        if not run.loss:
            self._show("Stopped.")
            raise Halt("Stopped in the first epoch, so there is no trained network for the cells "
                       "below. Run all cells again, with a smaller EPOCHS if it takes too long.")
        self._draw()
        self._show(str(run) if kind is None else (
            f"Stopped: back at the end of epoch {len(run.loss)} of {run.epochs}.\n"
            'To go on from there, run this cell again with TRAINING = "resume".'))
        return True

    def on_train_batch_end(self, batch, logs=None):
        now = time.perf_counter()
        if self.in_notebook and now > self.next_text:
            self.next_text = now + 1
            self._show(self._progress(logs["loss"]))
        if now > self.next_figure:
            self._draw()

    def on_epoch_end(self, epoch, logs=None):
        self._show(self._progress(logs["loss"]))

    def _progress(self, loss):
        run, epoch, step = self.checkpoints.run, self.checkpoints.finished, self.checkpoints.step
        steps, now = len(self.checkpoints.batches), time.perf_counter()
        done = epoch * steps + step
        self.first = self.first or (done, now)
        text = f"Epoch {epoch + 1}/{run.epochs}, step {step:,}/{steps:,}   loss {loss:.6f}"
        if run.psnr:
            text += f"   PSNR {run.psnr[-1]:.2f} dB"
        if self.first[0] < done < run.epochs * steps:
            a_step = (now - self.first[1]) / (done - self.first[0])
            text += f"   {duration(a_step * (run.epochs * steps - done))} left"
        return text

    def _show(self, text):
        if self.in_notebook:
            self.text.update({"text/plain": text}, raw=True)
        else:
            print(text, flush=True)

    def _draw(self):
        if not self.in_notebook:
            return
        started = time.perf_counter()
        figure = Figure(figsize=(9, 2.8), layout="constrained")
        curve, place = figure.subplots(1, 2, width_ratios=(5, 2))
        _draw_loss(curve, self.checkpoints.run)
        _show_image(place, denoise(self.model, self.crop), "the picture, denoised now")
        self.figure.update(ShownImage(_encoded(figure, "png")))
        now = time.perf_counter()
        self.next_figure = now + 50 * (now - started)  # so that it takes 2 % of the time


def require_trained(run):
    """Raise Halt unless the Run brought the validation images above the PSNR of the noisy ones."""
    if not run.psnr[-1] > run.noisy_psnr:  # not so for NaN either
        raise Halt(f"The network has not learned to denoise: {run.psnr[-1]:.2f} dB on the "
                   f"validation images, {run.noisy_psnr:.2f} dB without it. Train it for longer. "
                   "No picture was written.")


# ---- Pictures: read and write --------------------------------------------------------------------
#
# Files of many kinds become arrays of four: grey or colours, each with or without alpha.

NOISY_PICTURE = "noisy.png"
FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "GIF", "BMP")
MAX_PIXELS = 300_000_000  # a phone's 200 million, and room; more is likely a trap for memory
COLOURS = {1: 1, 2: 1, 3: 3, 4: 3}  # of so many channels: one may be alpha, which is none


class PictureError(Halt):
    """A picture cannot be read, denoised or written, as the message says and how to mend it."""


def clean_picture():
    """Return the clean picture behind noisy.png: NASA's photograph of Eileen Collins.

    It is scikit-image's `astronaut`, uint8, (512, 512, 3).
    """
    return skimage.data.astronaut()


def noisy_picture():
    """Return the pixels of noisy.png, uint8, (512, 512, 3).

    That is the clean picture plus Gaussian noise of 0.1, clipped and rounded to 8 bits. The noise
    comes from NumPy's legacy generator, whose numbers are promised never to change.
    """
    clean = to_float(clean_picture())
    noise = np.random.RandomState(2017).normal(0, 0.1, clean.shape)
    return to_uint8(clean + noise)


def picture_name(picture):
    """Return the name of a picture file: `picture`, or the key of a dict like Colab's upload()."""
    if isinstance(picture, dict):
        if len(picture) != 1:
            raise PictureError(f"PICTURE holds {count(len(picture), 'file')}: upload one.")
        [picture] = picture
    return picture


def open_picture(name):
    """Read the picture file `name`: PNG, JPEG, WebP, AVIF, GIF or BMP, 8 bits or 16-bit grey.

    Returns (height, width) if it is grey, (height, width, 2) with alpha, (height, width, 3) if it
    has colours, (height, width, 4) with alpha; uint16 for 16 bits, else uint8. A palette is written
    out as colours, 1 bit as grey, CMYK is converted to RGB. A photograph is turned upright as its
    EXIF data say. Of several frames it is the first. A missing noisy.png is made anew.

    Raises PictureError for a file that is missing, damaged, or of another kind.
    """
    return _read_picture(name)[0]


def _read_picture(name):
    """Read a picture as open_picture() does. Returns its pixels, and what PNG keeps beside them.

    That is the ICC profile and the resolution; gAMA, cHRM and cICP chunks are dropped.
    """
    path = _path(name)
    with _system_errors(name, "read"):
        if str(name) == NOISY_PICTURE and not path.exists():
            save_picture(noisy_picture(), path)
        if not path.is_file():
            raise PictureError(f"There is no picture file {name} in {pathlib.Path.cwd()}: put it "
                               "there, or name another (in the notebook's settings, in PICTURE).")
        content = path.read_bytes()
    try:
        with _opened(content) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise PictureError(f"{name} has {picture.width * picture.height:,} pixels; at most "
                                   f"{MAX_PIXELS:,} are read. Save it smaller.")
            picture.verify()  # a PNG's checksums, which decoding passes over
        with _opened(content) as picture:
            if getattr(picture, "is_animated", False):
                print(f"{name} holds several pictures; this is the first of them.")
            return _pixels(picture, name), _kept(picture)
    except PictureError:
        raise
    except Exception as error:  # Pillow raises errors of many kinds for a damaged file
        reason = "" if isinstance(error, UnidentifiedImageError) else f" ({error})"
        raise PictureError(_other_kind(name, content) or (
            f"{name} is damaged or of another kind than {', '.join(FORMATS)}{reason}.")) from error


@contextlib.contextmanager
def _system_errors(name, action):
    """Raise what the system has against the file `name` as a PictureError that names it."""
    try:
        yield
    except (OSError, ValueError, TypeError) as error:  # no room; no such name; no PNG of float
        reason = getattr(error, "strerror", None) or error
        raise PictureError(f"{name} cannot be {action}: {reason}") from error


def _opened(content):
    """Open a picture, without Pillow's guard against large ones: a phone's may exceed it."""
    Image.init()  # before this, Pillow does not know its formats
    guard, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        return Image.open(io.BytesIO(content), formats=[f for f in FORMATS if f in Image.OPEN])
    finally:
        Image.MAX_IMAGE_PIXELS = guard


def _other_kind(name, content):
    """Return how to convert a file that is not read, or None for one that is not known."""
    new = "picture.png"
    if content[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"IIRO", b"IIU\0"):
        return (f"{name} is a TIFF file, or a camera's raw file. Save raw files as PNG in an image "
                f"editor; convert TIFF by: import tifffile; common.save_picture("
                f"tifffile.imread({str(name)!r}), {new!r}); then use {new}.")
    if content[4:8] == b"ftyp" and content[8:12] not in (b"avif", b"avis"):
        return (f"{name} is a HEIC file, or a camera's raw file. Save it as JPEG or PNG in an "
                "image editor, or convert it: pip install pillow-heif; then import pillow_heif; "
                "from PIL import Image; pillow_heif.register_heif_opener(); "
                f"Image.open({str(name)!r}).convert('RGB').save({new!r}); then use {new}.")
    return None


def _kept(picture):
    """Return what save_picture() can keep of an opened `picture` beside its pixels."""
    fits = picture.mode != "CMYK"  # its profile is of colours that are gone
    return {name: picture.info[name] for name in ("icc_profile", "dpi")
            if picture.info.get(name) and (fits or name == "dpi")}


MODES = {"1": "L", "L": "L", "LA": "LA", "P": "RGB", "PA": "RGBA", "RGB": "RGB", "RGBA": "RGBA",
         "CMYK": "RGB"}


def _pixels(picture, name):
    """Decode a just opened `picture` into the array that open_picture() returns."""
    raw = picture.tile[0][3] if picture.tile else picture.mode  # how the file holds a pixel
    raw = str(raw[0] if isinstance(raw, tuple) else raw)
    transparent = "transparency" in picture.info
    if ";16" in raw and picture.mode[0] == "I" and not transparent:
        return np.asarray(ImageOps.exif_transpose(picture)).astype(np.uint16)
    if picture.mode not in MODES or (picture.format == "PNG" and ";16" in raw):
        what = "16 bits a channel" if ";16" in raw else f"colours of a rare kind ({picture.mode})"
        raise PictureError(f"{name} has {what}. Save it as RGB or grey with 8 bits a channel, or "
                           "as grey with 16 bits and no transparency.")
    if picture.mode == "CMYK":
        print(f"{name} has CMYK colours: they are converted to RGB.")
    target = MODES[picture.mode]
    if transparent:
        target = {"L": "LA", "RGB": "RGBA"}.get(target, target)
        if target == "LA":  # Pillow widens 1, 2 and 4 bits to 8, but not this value
            widened = {"1": 255, "L;2": 85, "L;4": 17}.get(raw, 1)
            picture.info["transparency"] = min(255, widened * picture.info["transparency"])
    return np.array(ImageOps.exif_transpose(picture).convert(target))


def save_picture(picture, path, **kept):
    """Write `picture` as a PNG file, whole or not at all, with what Pillow's save() is to keep.

    It is uint8 or, grey alone, uint16, of a shape that denoise() takes. Raises PictureError if the
    file cannot be written.
    """
    picture = _image_array(picture)
    picture = picture[:, :, 0] if picture.shape[2:] == (1,) else picture
    with _system_errors(path, "written"), atomic(_path(path)) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG", **kept)


# ---- Pictures: their noise -----------------------------------------------------------------------
#
# How strong it is, and at which contrast the network should see it.

NOISE_CROP = 512
NOISE_LEVELS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)


def estimate_noise(picture):
    """Estimate the standard deviation of Gaussian noise in a `picture`, in units of [0, 1].

    It is an array that denoise() takes. The median of the finest wavelet coefficients (Donoho and
    Johnstone, Biometrika 1994) reads too little where black and white have cut noise off. So it is
    read against itself: which noise, added to a smoothed copy and clipped, gives the same? It looks
    at the brightness, since JPEG smooths colours. Fine texture still counts as noise.

    Looks at no more than the middle 512×512 pixels. Returns a float, or None for a picture of less
    than 16 pixels a side.
    """
    height, width = picture.shape[:2]
    if min(height, width) < 16:
        return None
    top, left = max(0, (height - NOISE_CROP) // 2), max(0, (width - NOISE_CROP) // 2)
    values = to_float(without_alpha(picture)[top:top + NOISE_CROP, left:left + NOISE_CROP])
    peak = max(values.max(), 1e-3)  # low in 12 bits of a 16-bit file
    values = np.clip(values / peak, 0, 1)
    smooth = skimage.filters.gaussian(values, 2, channel_axis=-1)
    noise = np.random.default_rng(0).standard_normal(values.shape, dtype=np.float32)
    estimates = [_sigma(np.clip(smooth + level * noise, 0, 1)) for level in NOISE_LEVELS]
    return float(peak * np.interp(_sigma(values), [0, *estimates], [0, *NOISE_LEVELS]))


def _sigma(values):
    weights = (0.299, 0.587, 0.114) if values.shape[2] == 3 else (1,)  # of JPEG's brightness
    details = np.abs(pywt.dwtn(values @ np.float32(weights), "db2")["dd"])
    details = details[details > 1e-5]  # without what is flat: a margin, a caption
    return np.median(details) / 0.6745 if details.size else 0.0


def contrast_for(picture, noise_std, trained_std):
    """Return the contrast at which noise of `noise_std` in `picture` becomes `trained_std`.

    Both are in units of [0, 1], at most 1; `noise_std` may be None: not known, the contrast is 1.
    It is never so high that the range of the picture no longer fits between 0 and 1. Raises
    ValueError for other numbers.
    """
    if noise_std is None:
        return 1.0
    if not (0 <= noise_std <= 1 and 0 < trained_std <= 1):
        raise ValueError(f"noise_std is {noise_std}, trained_std {trained_std}: both are standard "
                         "deviations, from 0 to 1.")
    low, high = _range(picture)
    return min(trained_std / max(noise_std, 1e-6), max(1.0, 1 / max(high - low, 1e-3)))


def _range(picture):
    values = without_alpha(picture)
    return to_float(values.min()), to_float(values.max())


def describe_noise(picture, noise_std, trained_std):
    """Return in words what to expect of denoising; for the arguments, see contrast_for()."""
    if noise_std is None:
        return "The picture is too small to estimate its noise."
    if noise_std < 1e-4:
        return "There is no noise in the picture."
    contrast = contrast_for(picture, noise_std, trained_std)
    _, highest = _range(picture)
    text = f"Its noise is about {noise_std:.2g}; the network was trained on {trained_std:.2g}."
    if abs(contrast - 1) > 0.05:
        text += f"\nSo the network sees the picture at {contrast:.2g} times its contrast."
    if picture.dtype == np.uint16 and highest < 0.5:
        text += f"\nThe picture uses only the lowest {highest:.1%} of its 16 bits."
    if noise_std * contrast < 0.3 * trained_std:
        text += "\nThat is hardly any: the result may well be worse than the picture itself."
    elif noise_std * contrast < 0.7 * trained_std:
        text += "\nThat is weaker: expect the network to take away fine detail along with it."
    return text


# ---- Pictures: denoise ---------------------------------------------------------------------------
#
# A picture of any size goes through the network in windows that fit together without seams.

WINDOW = 512  # pixels a side of what the network sees at once
POINTWISE = {"InputLayer", "GaussianNoise", "GaussianDropout", "Dropout", "Activation", "ReLU",
             "LeakyReLU", "BatchNormalization", "Add", "Subtract", "Concatenate", "Identity"}


def denoise(model, image, noise_std=None, trained_std=0.1):
    """Denoise an `image` of any size. Returns the same shape, type and range.

    `image` is (height, width) or (height, width, channels), where 1 channel is grey, 2 are grey and
    alpha, 3 red, green, blue, and 4 those and alpha; alpha is not touched. It is uint8, uint16 or
    float; a float one is meant to be in [0, 1] but for its noise, and is returned clipped.

    Large ones go through the network in windows that overlap by as much as it sees around a pixel,
    so that the result is that of the whole at once. If there are many, a bar shows the progress.

    `noise_std` is the noise of the image and `trained_std` that of the training, both in units of
    [0, 1]: the network sees the image at the contrast that contrast_for() says. The contrast of
    grey is 1/√3 of that: its noise is the same in all three channels, where the network expects it
    to differ, so that the brightness of grey is √3 times as noisy. Three equal channels are grey.

    Raises PictureError for an array of another shape, type or range, and ValueError for a network
    that does not keep an image's size.
    """
    image = _image_array(image)
    result = np.array(image, order="C")
    source, target = without_alpha(image), without_alpha(result)
    if all(np.array_equal(source[..., 0], source[..., i]) for i in range(source.shape[2])):
        source = source[:, :, :1]
    contrast = contrast_for(image, noise_std, trained_std)
    middle = sum(_range(image)) / 2 if contrast > 1 else 0.5
    contrast = np.float32(contrast / np.sqrt(3 / source.shape[2]))
    offset = np.float32(0.5 - contrast * middle)
    windows = _windows(model, image.shape[:2])
    bar = keras.utils.Progbar(len(windows), interval=3, unit_name="part")
    for done, (window, part, place) in enumerate(windows):
        values = _through_network(model, to_float(source[window]), contrast, offset)
        target[place] = from_float(values[part], image.dtype)
        if len(windows) > 16:
            bar.update(done + 1)
    return result


def _image_array(image):
    """Return an image as an array that is sure to be one. Raises PictureError otherwise."""
    if isinstance(image, Image.Image):
        raise PictureError("This is a PIL image. Take an array: np.asarray(image.convert('RGB')), "
                           "for grey with 'L', for transparency with 'RGBA'.")
    image = np.asarray(image)
    image = image.astype(image.dtype.newbyteorder("="), copy=False)
    floating = np.issubdtype(image.dtype, np.floating)
    if image.ndim not in (2, 3) or image.size == 0 or (
            image.ndim == 3 and image.shape[2] not in COLOURS):
        raise PictureError(f"The array has the shape {image.shape}; an image is (height, width) or "
                           "(height, width, channels) with 1 to 4 channels, and has pixels.")
    if not floating and image.dtype not in (np.uint8, np.uint16):
        raise PictureError(f"The array is {image.dtype}; an image is uint8, uint16, or float with "
                           "values from 0 to 1.")
    if floating and not (image.min() >= -2 and image.max() <= 3 and np.mean(image < -0.25) < 0.2):
        # not so for NaN either; noise leads a little out of the range, and rarely far below zero
        raise PictureError(f"The array holds values from {image.min():.3g} to {image.max():.3g}; a "
                           "float image has values from 0 to 1, but for its noise.")
    return image


def without_alpha(image):
    """Return a view of the colours of `image`, without alpha: (height, width, 1 or 3)."""
    channels = image if image.ndim == 3 else image[:, :, np.newaxis]
    return channels[:, :, :COLOURS[channels.shape[2]]]


def _through_network(model, values, contrast, offset):
    """Apply the network to contrast × `values` + offset; `values` are (height, width, 1 or 3)."""
    batch = np.repeat(contrast * values + offset, 3 // values.shape[2], axis=2)
    denoised = model.predict_on_batch(batch[np.newaxis])[0]
    if not np.isfinite(denoised).all():
        raise Halt("The network returns values that are no numbers: its training went wrong. Set a "
                   "smaller LEARNING_RATE and run all cells again.")
    if denoised.shape != batch.shape:
        raise ValueError(f"The network makes {denoised.shape} of an image {batch.shape}; a "
                         "denoiser keeps height, width and the three colours.")
    if values.shape[2] == 1:
        denoised = denoised.mean(axis=2, keepdims=True)
    return (denoised - offset) / contrast


def _windows(model, size):
    """Return how to go through an image of `size` (height, width) piece by piece.

    Each piece is (window, part, place): show the network `window` of the image, keep `part` of what
    comes out, and put it to `place` in the result. All windows are equally large.
    """
    radius = 0 if max(size) <= WINDOW else receptive_radius(model)  # one window has no cuts
    if radius is None:
        print("How far this network sees around a pixel is not known, so the picture goes through "
              "it in one piece.")
        spans = [[(0, length, 0, length)] for length in size]
    else:
        spans = [_spans(length, radius) for length in size]
    return [(np.s_[top:bottom, left:right],
             np.s_[up - top:down - top, first - left:last - left], np.s_[up:down, first:last])
            for top, bottom, up, down in spans[0] for left, right, first, last in spans[1]]


def _spans(length, radius):
    """Cut `length` pixels. Returns for each window its start and stop and those of what is valid.

    Within `radius` pixels of a cut, the network misses what lies beyond. At the image's own edges
    there is nothing to miss.
    """
    most = max(WINDOW - 2 * radius, 2 * radius, 1)  # sees far: rather large windows than many
    number = max(1, -(-(length - 2 * radius) // most))
    step = -(-(length - 2 * radius) // number)
    window = min(length, step + 2 * radius)
    starts = [min(i * step, length - window) for i in range(number)]
    return [(start, start + window, start + radius if start else 0,
             start + window - radius if start + window < length else length) for start in starts]


def receptive_radius(model):
    """Return how many pixels around a pixel the network sees, at most, or None if it is not known.

    Each convolution with stride 1 and same padding adds dilation × (kernel size - 1) / 2, and what
    works on single pixels nothing: five 3×3 convolutions see 5 pixels far.
    """
    try:
        radii = [_layer_radius(entry) for entry in model.get_config()["layers"]]
    except (NotImplementedError, TypeError, KeyError):  # a class of one's own
        return None
    return None if None in radii else sum(radii)


def _layer_radius(entry):
    kind, config = entry["class_name"], entry["config"]
    if str(entry["module"]).split(".")[0] != "keras" or not isinstance(
            config.get("activation", ""), str):
        return None  # code of one's own: it may look at other pixels
    if kind in POINTWISE and config.get("axis", -1) in (-1, 3):
        return 0
    if ("kernel_size" in config and set(np.ravel(config["strides"])) == {1}
            and config["padding"] == "same" and config["data_format"] == "channels_last"):
        spread = np.subtract(config["kernel_size"], 1) * config["dilation_rate"]
        return int(-(-np.max(spread) // 2)) * max(1, len(entry.get("inbound_nodes", ())))
    return None


def denoise_file(model, source, target, noise_std=None, trained_std=0.1):
    """Denoise the picture file `source` and write the result to `target`, a PNG file.

    For what `source` may be, see open_picture(); its ICC profile and resolution are kept. For
    `noise_std` and `trained_std`, see denoise(). Returns the denoised pixels. Raises PictureError,
    and leaves no file and no part of one behind, if the picture cannot be denoised or the result
    not be written.
    """
    source, path = _path(source), _path(target)
    with _system_errors(target, "written"):
        if path.suffix.lower() != ".png":
            raise PictureError(f"The result {target} is to be a PNG file: let it end in .png.")
        if not path.parent.is_dir():
            raise PictureError(f"There is no folder {path.parent} in {pathlib.Path.cwd()} to write "
                               f"{path.name} to: create it.")
        if path.resolve() == source.resolve():
            raise PictureError(f"{target} is the noisy picture: give the result another name.")
    image, kept = _read_picture(source)
    denoised = denoise(model, image, noise_std, trained_std)
    save_picture(denoised, path, **kept)
    return denoised


# ---- Figures: each returns after drawing, the notebook calls plt.show() --------------------------

NOISY_COLOUR = "#D55E00"  # all of Okabe and Ito's palette, told apart by the colour-blind
NETWORK_COLOURS = {"Model1": "#0072B2", "Model2": "#009E73", "Model3": "#CC79A7"}
OTHER_COLOUR = "#56B4E9"
DPI = 120  # sharp on a high-density screen
ZOOM = (0.12, 0.39)  # where a zoomed crop lies, as fractions of height and width


class _Pictures(Figure):
    """A figure that notebooks embed as JPEG: a noisy picture takes ten times the room as PNG."""

    def _ipython_display_(self):
        display(ShownImage(_encoded(self, "jpeg", pil_kwargs={"quality": 90})))


def _encoded(figure, file_format, **options):
    file = io.BytesIO()
    figure.savefig(file, format=file_format, dpi=DPI, **options)
    return file.getvalue()


def _new_figure(width, height, title=None, kind=Figure):
    figure = plt.figure(figsize=(width, height), layout="constrained", facecolor="white", dpi=DPI,
                        FigureClass=kind)
    figure.suptitle(title)
    return figure


def _colour(name):
    return NETWORK_COLOURS.get(name, OTHER_COLOUR)


def _show_image(axes, image, title=""):
    colours = np.clip(to_float(without_alpha(image)), 0, 1)
    axes.imshow(np.repeat(colours, 3 // colours.shape[2], axis=2), interpolation="nearest")
    axes.set_title(title, fontsize=11)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def plot_clean_and_noisy(clean, noisy, title):
    """Draw each `clean` image (number, height, width, 3) above its `noisy` one, in [0, 1]."""
    rows = _new_figure(11, 3.1, title, _Pictures).subplots(2, len(clean))
    for row, name, images in zip(rows, ("clean", "noisy"), (clean, noisy)):
        row[0].set_ylabel(name, fontsize=12)
        for axes, image in zip(row, images):
            _show_image(axes, image)


def plot_curves(run):
    """Draw the training loss and the validation PSNR of a Run over its epochs.

    The axes are the same for all runs with the same noise. An inset shows the plateau.
    """
    title = f"{run.model} on {run.data}: {count(len(run.psnr), 'epoch')}"
    left, right = _new_figure(11, 3.6, title).subplots(1, 2)
    _draw_loss(left, run)
    left.set_title("Loss: lower is better")
    _draw_psnr(right, run)
    right.axhline(run.noisy_psnr, color=NOISY_COLOUR, ls="--", label="noisy input")
    right.set(title="PSNR: higher is better", ylim=(run.noisy_psnr - 2, run.noisy_psnr + 11))
    right.legend(fontsize=9, loc="center left")
    if len(run.psnr) > 2 and max(run.psnr) > run.noisy_psnr + 8:
        inset = right.inset_axes((0.55, 0.27, 0.42, 0.36))
        _draw_psnr(inset, run)
        inset.set(xlabel="", ylabel="", ylim=(run.noisy_psnr + 8, run.noisy_psnr + 9))
        inset.tick_params(labelsize=8)


def _draw_loss(axes, run):
    steps, losses = np.reshape(run.curve, (-1, 2)).T
    axes.plot(steps, losses, color=_colour(run.model), label="training batches")
    noisy = 10 ** (-run.noisy_psnr / 10)
    axes.axhline(noisy, color=NOISY_COLOUR, ls="--", label="noisy input")
    axes.set(ylabel="mean squared error", yscale="log", ylim=(noisy / 10 ** 1.1, noisy * 4))
    axes.legend(fontsize=9, loc="upper right")
    _mark_epochs(axes)


def _draw_psnr(axes, run, label=None):
    axes.plot(range(1, len(run.psnr) + 1), run.psnr, ".-", color=_colour(run.model), lw=1, ms=4,
              label=label or f"{run.validation_images:,} validation images")
    axes.set_ylabel("PSNR (dB)")
    _mark_epochs(axes)


def _mark_epochs(axes):
    last = np.ceil(max(np.max(line.get_xdata(), initial=1) for line in axes.lines))
    axes.set(xlabel="epoch", xlim=(0, 1.02 * last))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)


def plot_psnr_distribution(noisy, denoised, name, title):
    """Draw a histogram of the PSNR of each image after the network `name`; two Scores are given."""
    axes = _new_figure(8, 3.2).subplots()
    axes.hist(denoised.image_psnr, 60, color=_colour(name), label=name)
    axes.axvline(noisy.psnr, color=NOISY_COLOUR, ls="--", label="noisy: nearly the same for all")
    axes.set(title=title, xlabel="PSNR of one image (dB)", ylabel="number of images")
    axes.legend()


def plot_best_median_worst(clean, noisy, denoised, scores, title):
    """Draw the images with the highest, median and lowest PSNR as clean | noisy | denoised.

    The arrays (number, height, width, 3) are float32 in [0, 1], `scores` is score()'s result for
    the denoised ones.
    """
    order = np.argsort(scores.image_psnr)
    chosen = {"best": order[-1], "median": order[len(order) // 2], "worst": order[0]}
    rows = _new_figure(7, 7.2, title, _Pictures).subplots(3, 3)
    for row, (name, i) in zip(rows, chosen.items()):
        _show_image(row[0], clean[i], "clean")
        row[0].set_ylabel(name, fontsize=12)
        _show_image(row[1], noisy[i], f"noisy: {psnr(clean[i], noisy[i]):.1f} dB")
        _show_image(row[2], denoised[i], f"denoised: {scores.image_psnr[i]:.1f} dB")


def plot_picture(noisy, denoised, clean, title):
    """Draw a picture before and after denoising, its error, and a zoomed crop of each.

    `noisy`, `denoised` and `clean` have the same shape and type, one of those that denoise() takes;
    alpha is not drawn. If `clean` is None, what was removed stands in the place of the error. The
    crop is a fifth of the shorter side.
    """
    if clean is None:
        panels = {"noisy": noisy, "denoised": denoised,
                  "removed, ×2 (grey: nothing)": 0.5 + 2 * _difference(noisy, denoised)}
    else:
        panels = {"clean": clean, f"noisy: {psnr(clean, noisy):.2f} dB": noisy,
                  f"denoised: {psnr(clean, denoised):.2f} dB": denoised,
                  "error, ×5 (black: none)": 5 * np.abs(_difference(denoised, clean))}
    step = max(1, max(noisy.shape[:2]) // 1000)  # drawn small: leave out what none sees
    crop = _crop(noisy.shape)
    top, left, size = crop[0].start, crop[1].start, crop[0].stop - crop[0].start
    height = min(2, noisy.shape[0] / noisy.shape[1])
    figure = _new_figure(3.2 * len(panels), 3.2 * height + 3.9, title, _Pictures)
    places = figure.subplots(2, len(panels), height_ratios=(height, 1))
    for above, below, (name, picture) in zip(*places, panels.items()):
        _show_image(above, picture[::step, ::step], name)
        above.add_patch(plt.Rectangle((left / step, top / step), size / step, size / step,
                                      fill=False, color="yellow", lw=2))
        _show_image(below, picture[crop])


def _difference(one, other):
    return to_float(without_alpha(one)) - to_float(without_alpha(other))


def _crop(shape, most=None):
    """Return the slices of a square, a fifth of the shorter side, at most `most` pixels."""
    height, width = shape[:2]
    size = max(1, min(height, width) // 5)
    size = min(size, most or size)
    top, left = int(ZOOM[0] * (height - size)), int(ZOOM[1] * (width - size))
    return np.s_[top:top + size, left:left + size]


def plot_pictures(pictures, title, columns=None):
    """Draw `pictures` of one size, a dict of captions and arrays, in rows of `columns` (or one).

    Each array has a shape and a type that denoise() takes; float values are clipped to [0, 1].
    """
    columns = columns or len(pictures)
    rows = -(-len(pictures) // columns)
    height, width = next(iter(pictures.values())).shape[:2]
    figure = _new_figure(11, rows * (11 / columns * height / width + 0.3) + 0.4, title, _Pictures)
    places = figure.subplots(rows, columns, squeeze=False).flat
    for axes, (caption, picture) in zip(places, pictures.items()):
        _show_image(axes, picture, caption)
    for axes in places[len(pictures):]:
        axes.set_axis_off()


def plot_noise_levels(levels, before, after, noise_std, name, title):
    """Draw the PSNR (dB) `before` and `after` the network `name` over the `levels` of the noise.

    The level that it was trained on, `noise_std`, is marked, and so is where it does harm.
    """
    axes = _new_figure(8, 3.6).subplots()
    axes.plot(levels, before, "s--", color=NOISY_COLOUR, label="noisy")
    axes.plot(levels, after, "o-", color=_colour(name), label=name)
    harm = np.less(after, before)
    if harm.any():
        axes.fill_between(levels, before, after, where=harm, interpolate=True,
                          color=NOISY_COLOUR, alpha=0.25, label="here it does harm")
    axes.axvline(noise_std, color="black", lw=1, ls=":", label="trained on")
    axes.set(title=title, xlabel="standard deviation of the noise", ylabel="PSNR (dB)")
    axes.minorticks_on()
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=9)


def plot_side_by_side(runs, seeds, title):
    """Draw the PSNR of `runs` over the epochs, and that of the `seeds` as dots: dicts by name.

    `title` says what the dots are.
    """
    left, right = _new_figure(11, 3.6).subplots(1, 2, width_ratios=(2, 1))
    for name, run in runs.items():
        _draw_psnr(left, run, f"{name}, {run.data}")
    left.set_title("Validation images, while they trained")
    left.legend(fontsize=9)
    for place, (name, reached) in enumerate(seeds.items()):
        beside = np.linspace(-0.2, 0.2, len(reached))  # or equal results would hide each other
        right.plot(place + beside, reached, "o", color=_colour(name))
    right.set(title=title, ylabel="PSNR (dB)", xticks=range(len(seeds)), xticklabels=list(seeds))
    right.margins(x=0.1, y=0.1)
    right.grid(alpha=0.3)


# The last line: by it a notebook knows that this file is whole, and the one that belongs to it.
BUNDLE = "denoising coursework 7"
