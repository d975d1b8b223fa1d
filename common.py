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
import warnings
from typing import NamedTuple

import IPython.display
import matplotlib.pyplot as plt
import numpy as np
import pywt
import skimage.data
import skimage.metrics
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from PIL import Image, ImageOps

# ---- Keras ---------------------------------------------------------------------------------------
#
# It is imported without the chatter of its backend, and set up the same for all users.


os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# TensorFlow prints about oneDNN and CUDA past Python, whatever its own log level is.
_stderr, _nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
os.dup2(_nowhere, 2)
try:
    import keras

    GPUS = [device for device in keras.distribution.list_devices() if not device.startswith("cpu")]
finally:
    os.dup2(_stderr, 2)
    os.close(_stderr)
    os.close(_nowhere)
keras.config.set_image_data_format("channels_last")  # whatever the user's keras.json says
# TensorFlow warns when it traces anew, as it has to for each new network and size of picture.
logging.getLogger("tensorflow").addFilter(lambda record: "retracing" not in record.getMessage())

# ---- Tools ---------------------------------------------------------------------------------------


class Halt(RuntimeError):
    """Ends a cell and the queue of cells behind it by one line, without a traceback."""

    def _render_traceback_(self):  # what IPython shows
        return [f"Halt: {self}"]


@contextlib.contextmanager
def atomic(path):
    """Give a temporary path that takes the place of `path` when the block ends without an error.

    A block that fails leaves `path` as it was, and nothing else.
    """
    temporary = path.with_name(f".{os.getpid()}-{time.time_ns()}.{path.name}")
    try:
        yield temporary
        _replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _replace(source, target):
    for seconds in (0.1, 0.5, 2):
        with contextlib.suppress(PermissionError):  # on Windows, while another program looks at it
            return os.replace(source, target)
        time.sleep(seconds)
    return os.replace(source, target)


# ---- Settings ------------------------------------------------------------------------------------
#
# Those of the notebook are checked here, and three environment variables change them from outside:
# DENOISE_QUICK, DENOISE_EPOCHS and, under Data, DENOISE_DATA.

QUICK = os.environ.get("DENOISE_QUICK", "0") not in ("", "0")
QUICK_EPOCHS, QUICK_TRAIN_IMAGES, QUICK_TEST_IMAGES = 2, 1600, 200


def set_up(name, epochs, batch_size, noise_std, seed):
    """Check the settings, and print the versions, the device and the kind of run.

    A missing noisy.png is made anew. Returns the number of epochs to train: `epochs`, or
    DENOISE_EPOCHS in its place; a quick run has QUICK_EPOCHS at most. Raises Halt for a setting
    that cannot be used.
    """
    epochs = os.environ.get("DENOISE_EPOCHS") or epochs
    epochs = int(epochs) if str(epochs).isdecimal() else epochs
    if not re.fullmatch(r"[\w-]+", str(name), re.ASCII):
        raise Halt(f"NAME is {name!r}; it may hold letters, digits, - and _, and no spaces.")
    for setting, value, least in (("EPOCHS (or DENOISE_EPOCHS)", epochs, 1),
                                  ("BATCH_SIZE", batch_size, 1), ("SEED", seed, 0)):
        if not isinstance(value, int) or value < least:
            raise Halt(f"{setting} is {value!r}; it must be a whole number of at least {least}.")
    if not (isinstance(noise_std, (int, float)) and 0 < noise_std <= 1):
        raise Halt(f"NOISE_STD is {noise_std!r}; it is meant for pixels from 0 to 1, so it must "
                   "lie between them: 25 of 255 is 25 / 255 = 0.098.")
    print(f"Python {sys.version.split()[0]}, NumPy {np.__version__}, {describe_backend()}")
    if QUICK:
        print("Quick run (DENOISE_QUICK=1): few images and epochs, every file goes to build/.\n"
              "It shows that the notebook works, not what the network can do.")
    if not pathlib.Path("noisy.png").exists():
        save_picture(noisy_picture(), "noisy.png")
    return min(epochs, QUICK_EPOCHS) if QUICK else epochs


def describe_backend():
    """Return the versions and the device that the networks run on, as one line of text."""
    backend = keras.backend.backend()
    version = importlib.import_module(backend).__version__
    device = ", ".join(GPUS) or f"CPU with {os.cpu_count()} cores"
    return f"Keras {keras.__version__} on {backend} {version}, {device}"


def output_path(name):
    """Return where to write the file or folder `name`: in build/ if the run is a quick one."""
    path = pathlib.Path(os.path.expanduser(name))
    if QUICK:
        path = pathlib.Path("build", path.name)
        path.parent.mkdir(exist_ok=True)
    return path


# ---- Data ----------------------------------------------------------------------------------------
#
# CIFAR-10, or patches of photographs in its place.

PATCH_SIZE = 32
TRAIN_PHOTOS = ("coffee", "hubble_deep_field", "retina")
TEST_PHOTOS = ("chelsea", "rocket")


class Data(NamedTuple):
    """A data set: its name, and its images as uint8 arrays (number, 32, 32, 3)."""

    name: str
    train: np.ndarray
    test: np.ndarray

    def __str__(self):
        return (f"{self.name}: {len(self.train):,} training images, {len(self.test):,} test "
                "images")


def load_data():
    """Load the images to train and test on.

    The environment variable DENOISE_DATA names an npz file with the arrays x_train and x_test, or
    is the word "photos": 32×32 patches of photographs that scikit-image installs. Without it, a
    quick run takes the photographs, and any other lets Keras load CIFAR-10 from its cache or the
    network; where that fails, the photographs take its place and a framed warning says so.

    Returns a Data. Raises Halt if the named npz is not what it should be.
    """
    source = os.environ.get("DENOISE_DATA") or ("photos" if QUICK else "")
    if source == "photos":
        data = _photographs()
    elif source:
        data = _read_npz(pathlib.Path(os.path.expanduser(source)))
    else:
        data = _cifar10_or_photographs()
    if QUICK:
        data = Data(data.name, data.train[:QUICK_TRAIN_IMAGES], data.test[:QUICK_TEST_IMAGES])
    return data


def _read_npz(path):
    name = "CIFAR-10" if path.stem.lower() in ("cifar10", "cifar-10") else path.stem
    name = name.replace("$", "")  # which begins a formula in a figure's title
    try:
        with np.load(path, allow_pickle=False) as file:
            data = Data(name, file["x_train"], file["x_test"])
        for images in data[1:]:
            kind = (images.dtype, images.shape[1:])
            if kind != (np.uint8, (PATCH_SIZE, PATCH_SIZE, 3)) or not len(images):
                raise ValueError(f"it holds {images.dtype} of shape {images.shape}")
        return data
    except Exception as error:  # a damaged zip file raises errors of many kinds
        raise Halt(f"DENOISE_DATA names {path}, which cannot be used: {error}. Expected is an npz "
                   "file with the arrays x_train and x_test, uint8, of shape (number, 32, 32, 3), "
                   "or the word photos.") from error


def _cifar10_or_photographs():
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(30)  # Keras sets none: a silent server would hang the notebook
    try:
        (train, _), (test, _) = keras.datasets.cifar10.load_data()
        return Data("CIFAR-10", train, test)
    except Exception as error:  # Keras raises a bare Exception for a failed download
        print("!" * 92,
              "!! CIFAR-10 COULD NOT BE LOADED: PHOTOGRAPHS TAKE ITS PLACE",
              f"!! The figures below are not CIFAR-10's. The reason: {error}",
              "!! To give it by hand, let the environment variable DENOISE_DATA name an npz file",
              "!! with x_train and x_test (uint8, number × 32 × 32 × 3), by %env DENOISE_DATA=…",
              "!! in a cell at the top, and run all cells again.", "!" * 92, sep="\n")
        return _photographs()
    finally:
        socket.setdefaulttimeout(timeout)


def _photographs():
    return Data("photographs", _photo_patches(TRAIN_PHOTOS, 10_000, seed=1),
                _photo_patches(TEST_PHOTOS, 2_000, seed=2))


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


def from_float(images, dtype=np.uint8):
    """Return float `images` of any shape as `dtype` (uint8, uint16 or float), clipped to [0, 1].

    Whole numbers are the values times 255 (uint8) or 65,535 (uint16), rounded.
    """
    images = np.clip(images, 0, 1)
    if np.issubdtype(dtype, np.floating):
        return images.astype(dtype)
    return np.round(images * np.iinfo(dtype).max).astype(dtype)


def add_noise(images, noise_std, seed):
    """Add Gaussian noise to float32 `images` in [0, 1], the same noise for the same `seed`.

    `noise_std` is its standard deviation, in units of the range [0, 1]. The sum is float32 and is
    not clipped, as in Keras's GaussianNoise layer, so it leaves [0, 1] here and there.
    """
    noise = np.random.default_rng(seed).standard_normal(images.shape, dtype=np.float32)
    return images + np.float32(noise_std) * noise


def psnr(clean, images):
    """Return the peak signal-to-noise ratio of `images` against `clean`, in decibels.

    Both have the same shape; each is float in [0, 1], uint8 or uint16. PSNR = 10·log10(1 / MSE),
    with one mean squared error over all that is given (scikit-image's formula).
    """
    return float(skimage.metrics.peak_signal_noise_ratio(
        to_float(clean), to_float(images), data_range=1))


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
    image_ssim = [skimage.metrics.structural_similarity(*pair, data_range=1, channel_axis=-1)
                  for pair in pairs]
    return Scores(psnr(clean, images), np.array([psnr(*pair) for pair in pairs]),
                  np.array(image_ssim))


# ---- Training ------------------------------------------------------------------------------------
#
# What the notebook hands to fit(): the optimizer, the batches, and two callbacks. One keeps the run
# in a file, one shows it.

POINTS_PER_EPOCH = 20  # of the curve of the training loss
STEPS_PER_CALL = 16 if GPUS else 1  # so that a GPU does not wait for Python after every step


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

    def takes(self, shape):
        return len(shape) == 4 and min(shape[2:]) >= 16

    def update_step(self, gradient, variable, learning_rate):
        if not self.takes(variable.shape):
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
        return -(-len(self.order) // self.batch_size)

    def __getitem__(self, index):
        start = index * self.batch_size
        batch = to_float(self.images[self.order[start:start + self.batch_size]])
        return batch, batch


class Run(NamedTuple):
    """What a training is and how it went; PSNR is over the whole set, in dB.

    `loss`, `psnr` (of the validation images) and `seconds` have one value an epoch, `curve` has
    triples of epoch, as a fraction, training loss and learning rate. `date` is the day on which it
    began. `picture_psnr`, of noisy.png denoised, and `test_psnr`, of all test images, stand in
    weights/ alone. `key` is the name of the run.
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
    test_psnr: float | None = None
    key: str = "weights"

    def __str__(self):
        spent = datetime.timedelta(seconds=round(sum(self.seconds)))
        return (f"Epoch {len(self.loss)} of {self.epochs} on {self.data} ({self.train_images:,} "
                f"training images, seed {self.seed}), after {spent} h,\n"
                f"begun on {self.date} with {self.backend}.\n"
                f"Loss {self.loss[-1]:.6f}; PSNR {self.psnr[-1]:.2f} dB on "
                f"{self.validation_images:,} validation images.")


class Checkpoints(keras.callbacks.Callback):
    """Keeps a run in a file in `folder`, replaced after each epoch, and lets fit() go on from it.

    `model` is compiled, with the mean squared error as its loss. `batches` are Batches of the
    training images, `validation` is a pair of noisy and clean images, float32 (number, height,
    width, 3), `data` is the data set's name, `epochs` the number of epochs and `noise_std` the
    strength of the noise. `training` is "resume": a run that was stopped or killed goes on after
    its last finished epoch, and a finished one is not trained again; or "restart": it begins anew,
    and the file that it has is replaced when its first epoch has finished.

    `run` is the Run, and `epoch` is for fit()'s `initial_epoch`. fit() goes into a `with` block of
    the checkpoints: whatever ends it, the network is then that of the last finished epoch. It takes
    the same batches, with shuffle=False since they are in their order, and the same validation.

    Raises Halt for what does not fit together: another loss or `training`, other noise in
    `validation`, a network that has been trained before or whose code has changed since; for a
    file that cannot be read or written, here and in fit(); and in fit(), for a loss that is no
    number and for an `initial_epoch` other than `epoch`.
    """

    def __init__(self, model, batches, validation, *, data, epochs, noise_std, training="resume",
                 folder="checkpoints"):
        super().__init__()
        self.set_model(model)
        self.batches, self.steps_per_call, self.display = batches, model.steps_per_execution, None
        noisy, clean = validation
        self.probe = noisy[:4]  # what the network makes of it tells its code from another
        if training not in ("resume", "restart"):
            raise Halt(f'TRAINING is {training!r}; it must be "resume", "restart" or "reference".')
        _check_loss(model, noisy[:32], clean[:32])
        self.run = Run(model.name, data, len(batches.images), len(clean), epochs,
                       batches.batch_size, noise_std, batches.seed, psnr(clean, noisy),
                       datetime.date.today().isoformat(), describe_backend(), [], [], [], [])
        if abs(self.run.noisy_psnr + 20 * np.log10(noise_std)) > 0.5:
            raise Halt(f"NOISE_STD is {noise_std}, but the validation images have other noise: "
                       "run all cells.")
        model.optimizer.build(model.trainable_variables)
        self.run = self.run._replace(key=_key(model, self.run, batches, validation))
        self.path = pathlib.Path(folder, f"{model.name}-{self.run.key}.npz")
        self.kept = self._state()
        trial = self.path.with_suffix(".trial")  # a folder that is full or locked shows now
        self._write(trial, self.kept)
        trial.unlink(missing_ok=True)
        # model.trained is the key of the run that trained it, for require_trained(), too.
        if training == "resume" and self.path.exists():
            self._resume()
        elif getattr(model, "trained", None) or int(model.optimizer.iterations):
            raise Halt("This network has been trained before: run all cells, with TRAINING = "
                       '"resume" to go on where a run ended.')
        self.epoch = len(self.run.loss)

    def _resume(self):
        self.kept = _read(self.path)
        try:
            self.go_back()
            same = np.allclose(self._answer(), self.kept["answer"], atol=0.01)  # GPUs round
        except (KeyError, ValueError):
            same = False
        if not same:
            self.model.trained = "by other code"
            raise Halt(f"The code of the network has changed since {self.path} was written: set "
                       'TRAINING = "restart" to train anew, and run all cells.')

    def _variables(self):
        return self.model.weights + self.model.optimizer.variables

    def _answer(self):
        return self.model.predict_on_batch(self.probe)

    def _state(self):
        arrays = {f"variable{i:03d}": np.array(keras.ops.convert_to_numpy(variable))
                  for i, variable in enumerate(self._variables())}
        return arrays | {"answer": self._answer(), "run": json.dumps(self.run._asdict())}

    def _write(self, path, state):
        try:
            path.parent.mkdir(exist_ok=True)  # not its parents: a drive may not be mounted
            with atomic(path) as temporary, open(temporary, "wb") as file:
                np.savez(file, **state)
                file.flush()
                os.fsync(file.fileno())  # a power cut must not leave an empty file by that name
        except OSError as error:
            raise Halt(f"Checkpoints cannot be written to {path.parent}: {error}. Make room there, "
                       "or name in CHECKPOINTS another folder, in one that exists (in Colab, mount "
                       "your Drive first). Then run all cells again.") from error

    def go_back(self):
        """Take the run and the network back to the end of the last finished epoch."""
        self.run = Run(**json.loads(str(self.kept["run"])))
        self.model.trained = self.run.key if self.run.loss else None
        for i, variable in enumerate(self._variables()):
            variable.assign(self.kept[f"variable{i:03d}"])
        self._set_noise(len(self.run.loss))  # JAX has let go of all that a step was working on
        self.model.reset_metrics()

    def _set_noise(self, epoch):
        generators = [variable for variable in self.model.variables
                      if variable.path.endswith("seed_generator_state")]
        for i, state in enumerate(generators):  # so the noise is no part of what is kept
            rng = np.random.default_rng([self.batches.seed, epoch, i])
            state.assign(rng.integers(2**31, size=2))

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # several clicks end as one does
        try:
            self.go_back()  # after another callback has put in other weights, too
            if self.display:
                self.display.show()
        finally:
            signal.signal(signal.SIGINT, handler)
        if kind is not KeyboardInterrupt:
            return False
        if not self.run.loss:
            raise Halt("Stopped in the first epoch, so there is no trained network for the cells "
                       "below. Run all cells again, with a smaller EPOCHS if it takes too long.")
        print("Stopped: the network is back at the end of its last finished epoch.\nTo go on from "
              'there, run this cell again, with TRAINING = "resume", and all below it.')
        return True

    def on_epoch_begin(self, epoch, logs=None):
        if epoch != len(self.run.loss):
            raise Halt(f"The next epoch is {len(self.run.loss)}, not {epoch}: let fit() have "
                       "initial_epoch=checkpoints.epoch, and run all cells.")
        self.model.trained, self.started, self.step = self.run.key, time.perf_counter(), 0
        self.seen, self.total = 0, 0.0  # images and the sum of their losses at the last point
        self.batches.shuffle(epoch)  # fit() starts the threads that make batches after this
        self._set_noise(epoch)

    def on_train_batch_end(self, batch, logs=None):
        steps = len(self.batches)
        self.step = min(self.step + self.steps_per_call, steps)
        seen = min(self.step * self.batches.batch_size, len(self.batches.images))
        if (seen - self.seen) * POINTS_PER_EPOCH >= len(self.batches.images) or self.step == steps:
            total = float(logs["loss"]) * seen  # Keras's is the mean since the epoch began
            self.run.curve.append([len(self.run.loss) + self.step / steps,
                                   (total - self.total) / (seen - self.seen),
                                   float(self.model.optimizer.learning_rate)])
            self.seen, self.total = seen, total

    def on_epoch_end(self, epoch, logs=None):
        if not np.isfinite(logs["loss"] + logs["val_loss"]):
            raise Halt("The training has diverged: its loss is no number any more. Set a smaller "
                       "LEARNING_RATE and run all cells again.")
        self.run.loss.append(float(logs["loss"]))
        self.run.psnr.append(float(-10 * np.log10(logs["val_loss"])))
        self.run.seconds.append(time.perf_counter() - self.started)
        state = self._state()
        self._write(self.path, state)
        self.kept = state


def _check_loss(model, noisy, clean):
    """Raise Halt unless the loss of the `model`, which this builds, is the mean squared error."""
    if not model.compiled:
        raise Halt("The network has not been compiled: run all cells, model.compile among them.")
    # On JAX, fit() would lose a batch if it had to build the network.
    loss = model.evaluate(noisy, clean, return_dict=True, verbose=0)["loss"]
    expected = np.mean((model.predict_on_batch(noisy) - clean) ** 2)
    if not np.isclose(loss, expected, rtol=1e-3, equal_nan=True):
        raise Halt('The PSNR is computed from the loss: compile with loss="mse", let nothing '
                   "else add to it, and let layers make noise while training alone.")


def _key(model, run, batches, validation):
    """Return a name made of everything that shapes a run, so that no other finds its file."""
    optimizer = keras.optimizers.serialize(model.optimizer)
    del optimizer["config"]["name"]  # Keras counts: adam, adam_1, … each time the cell is run
    shape = json.dumps([model.get_config(), optimizer, run.epochs, run.batch_size, run.noise_std,
                        run.seed], sort_keys=True)
    # A lambda's code holds its file and line, which change; _answer() tells another code.
    shape = re.sub(r'"(?:[\w+/=]+\\n)+"', '""', shape)
    key = hashlib.sha256(shape.encode())
    for images in (batches.images, *validation):
        key.update(np.ascontiguousarray(images))
    return key.hexdigest()[:16]


def _read(path):
    """Return the arrays of the checkpoint `path`, as a dict. Raises Halt if it cannot be read."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except Exception as error:  # a damaged zip file raises errors of many kinds
        raise Halt(f"The checkpoint {path} cannot be read ({error}). Delete it to train anew, and "
                   "run all cells.") from error


def finished_runs(run, folder):
    """Return this notebook's `run` and other finished ones in `folder`, by the names of the models.

    Those are the checkpoints with the same data and settings, for each name the newest.
    """
    paths = pathlib.Path(folder).glob(f"[!.]*-{16 * '?'}.npz")  # not what is being written
    paths = sorted(paths, key=lambda path: path.stat().st_mtime)
    runs = [Run(**json.loads(str(_read(path)["run"]))) for path in paths]
    same = {each.model: each for each in runs  # in all fields from the data to the seed
            if each[1:8] == run[1:8] and len(each.loss) == each.epochs}
    return dict(sorted((same | {run.model: run}).items()))


class LiveDisplay(keras.callbacks.Callback):
    """Shows a run while it trains: how far it is, its curve, and a crop of `picture` denoised.

    `checkpoints` keep the run, and stand before it among fit()'s callbacks; `picture` is one that
    denoise() takes.
    """

    def __init__(self, checkpoints, picture):
        super().__init__()
        self.checkpoints = checkpoints
        checkpoints.display = self  # which shows it once more when fit() has ended
        self.crop = picture[_crop(picture.shape)]
        self.text, self.figure = (IPython.display.DisplayHandle() for _ in range(2))
        for place in (self.text, self.figure):
            place.display(_Text())
        self.begun = self.started = None  # epochs done and the time, when the first step was done
        self.reached = ""  # the last PSNR
        self.next_text = self.next_figure = 0.0

    def on_train_begin(self, logs=None):
        self.show()

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        now = time.perf_counter()
        if self.started is None:  # not before: the first step compiles
            self.begun, self.started = self._done(), now
        if now > self.next_text:
            self.next_text = now + 1
            self._tell(logs["loss"])
        if now > self.next_figure:
            self._draw()

    def on_epoch_end(self, epoch, logs=None):
        self.reached = f"   PSNR {-10 * np.log10(logs['val_loss']):.2f} dB"
        self._tell(logs["loss"])

    def show(self):
        """Show the run as it was kept last."""
        run = self.checkpoints.run
        self.text.update(_Text(f"{len(run.loss)} of {run.epochs} epochs done"))
        self._draw()
        self.next_figure = time.perf_counter() + 3  # the first one compiled: its time says nothing

    def _done(self):
        return self.epoch + self.checkpoints.step / len(self.checkpoints.batches)

    def _tell(self, loss):
        epochs, done = self.checkpoints.run.epochs, self._done()
        text = (f"Epoch {self.epoch + 1}/{epochs}, step {self.checkpoints.step:,}/"
                f"{len(self.checkpoints.batches):,}   loss {loss:.6f}{self.reached}")
        if done > self.begun:
            an_epoch = (time.perf_counter() - self.started) / (done - self.begun)
            text += f"   {datetime.timedelta(seconds=round(an_epoch * (epochs - done)))} h left"
        self.text.update(_Text(text))

    def _draw(self):
        started = time.perf_counter()
        self.figure.update(IPython.display.Image(_progress_figure(
            self.checkpoints.run, denoise(self.checkpoints.model, self.crop))))
        now = time.perf_counter()
        self.next_figure = now + 50 * (now - started)  # so that it takes 2 % of the time


class _Text(str):
    __repr__ = str.__str__  # shown without quotes


def require_trained(model, run):
    """Raise Halt unless the `model` is what the Run trained, and has learned to denoise.

    That is, to bring the validation images above the PSNR of the noisy ones.
    """
    if getattr(model, "trained", None) != run.key:
        raise Halt("The network has been built again since it was trained: run all cells. No "
                   "picture was written.")
    if not run.psnr[-1] > run.noisy_psnr:
        raise Halt(f"The network has not learned to denoise: {run.psnr[-1]:.2f} dB on the "
                   f"validation images, {run.noisy_psnr:.2f} dB without it. Train it for longer, "
                   "or with a smaller LEARNING_RATE if its loss has risen. No picture was written.")


# ---- Trained weights -----------------------------------------------------------------------------
#
# weights/ holds the networks of the published runs, and their histories.

WEIGHTS = pathlib.Path("weights")


def read_run(name):
    """Return the Run behind the weights of the model `name`, from weights/ModelX.json."""
    return Run(**json.loads((WEIGHTS / f"{name}.json").read_text(encoding="utf-8")))


def published_runs():
    """Return the Runs behind weights/ by the names of their models: none, if it is not here."""
    return {path.stem: read_run(path.stem) for path in sorted(WEIGHTS.glob("*.json"))}


def load_reference(model, noise_std):
    """Load weights/ModelX.weights.h5 into `model`, which is named ModelX. Returns their Run.

    Raises Halt if the files are missing or damaged, if they come from other noise than `noise_std`,
    or if this network does not denoise noisy.png with them as well as their own did.
    """
    try:
        run = read_run(model.name)
        model.trained = "by something else"
        # A network without an optimizer, or Keras warns that the file has none.
        bare = keras.Model(model.input, model.output)
        bare.load_weights(WEIGHTS / f"{model.name}.weights.h5")
        reached = psnr(clean_picture(), denoise(model, noisy_picture()))
        if run.noise_std != noise_std:
            raise ValueError(f"they come from NOISE_STD = {run.noise_std}, here it is {noise_std}")
        if not abs(reached - run.picture_psnr) <= 0.01:
            raise ValueError(f"with them it brings noisy.png to {reached:.2f} dB, not to "
                             f"{run.picture_psnr:.2f} dB: they belong to another network")
        model.trained = run.key
        return run
    except Exception as error:  # h5py and Keras raise errors of many kinds, some pages long
        reason = str(error).partition("\n")[0]
        raise Halt(f"The weights of {model.name} in {WEIGHTS}/ cannot be used: {reason}. Bring the "
                   'right files there, or set TRAINING = "resume" to train. Then run all cells.'
                   ) from error


# ---- Pictures: read and write --------------------------------------------------------------------
#
# Files of many kinds become arrays of four: grey or colours, each with or without alpha.

Image.init()  # before this, Pillow does not know its formats
FORMATS = [kind for kind in ("PNG", "JPEG", "WEBP", "AVIF", "GIF", "BMP") if kind in Image.OPEN]


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
    return from_float(clean + np.random.RandomState(2017).normal(0, 0.1, clean.shape))


def open_picture(name):
    """Read the picture file `name`: PNG, JPEG, WebP, AVIF, GIF or BMP. Returns pixels and profile.

    The pixels are (height, width) if it is grey, (height, width, 2) with alpha, (height, width, 3)
    if it has colours, (height, width, 4) with alpha; uint16 for 16-bit grey, else uint8: 16-bit
    colours and 16-bit grey with alpha are read as 8 bits, and one transparent value of 16-bit grey
    is not kept. A palette is written out as colours, CMYK is converted to RGB. A photograph is
    turned upright as its EXIF data say. Of several frames it is the first. The profile is its ICC
    profile, bytes or None, for save_picture().

    Raises Halt for a file that is missing, damaged or of another kind.
    """
    path = pathlib.Path(os.path.expanduser(name))
    if not path.is_file():
        raise Halt(f"There is no picture {name} in {pathlib.Path.cwd()}: put it there.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # a phone's are large
            with Image.open(path, formats=FORMATS) as picture:
                picture.load()
                profile = None if picture.mode == "CMYK" else picture.info.get("icc_profile")
                return _pixels(picture), profile
    except Exception as error:  # Pillow raises errors of many kinds for a damaged file
        raise Halt(f"{name} cannot be read: {error}. What is read is {', '.join(FORMATS)}; save "
                   "other kinds (TIFF, HEIC, a camera's raw files) as PNG in an image editor."
                   ) from error


def _pixels(picture):
    with contextlib.suppress(Exception):  # EXIF data that cannot be used: the pixels can
        picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I"):
        return np.asarray(picture).astype(np.uint16)
    mode = "L" if picture.mode in ("1", "L", "LA") else "RGB"
    return np.array(picture.convert(mode + "A" if picture.has_transparency_data else mode))


def save_picture(picture, path, profile=None):
    """Write `picture` as the PNG file `path`, whole or not at all, with its ICC `profile`, if any.

    It is (height, width), uint8 or uint16, or (height, width, 2 to 4 channels), uint8. Raises Halt
    if it cannot be written.
    """
    try:
        with atomic(pathlib.Path(path)) as temporary:
            Image.fromarray(picture).save(temporary, format="PNG", icc_profile=profile)
    except Exception as error:  # no room or folder; no PNG of float
        raise Halt(f"{path} cannot be written: {error}") from error


# ---- Pictures: their noise, and without it -------------------------------------------------------

WINDOW = 512  # pixels a side of what the network is shown at once, but for its margins
NOISE_CROP = 1024  # pixels a side, of which the noise is estimated
BRIGHTNESS = np.float32([0.299, 0.587, 0.114])  # JPEG's weights of red, green and blue


def estimate_noise(picture):
    """Estimate the standard deviation of Gaussian noise in a `picture`, in units of [0, 1].

    It is an array that denoise() takes. Returns a float: the median of the finest diagonal wavelet
    coefficients (Donoho and Johnstone, Biometrika 1994) in the middle of the picture. It looks at
    the brightness, since JPEG smooths colours, and passes over what is flat. Fine texture counts as
    noise; noise that black and white have cut off does not.
    """
    top, left = (max(0, (side - NOISE_CROP) // 2) for side in picture.shape[:2])
    values = to_float(_colours(picture[top:top + NOISE_CROP, left:left + NOISE_CROP]))
    weights = BRIGHTNESS if values.shape[2] == 3 else np.float32([1])
    details = np.abs(pywt.dwt2(values @ weights, "db2")[1][2])
    details = details[details > 1e-4]
    return float(np.median(details) / 0.6745 / np.linalg.norm(weights)) if details.size else 0.0


def _colours(image):
    """Return a view of the colours of `image`: (height, width, 3), or 1 for grey. No alpha."""
    channels = image if image.ndim == 3 else image[:, :, np.newaxis]
    colours = channels[:, :, :3 if channels.shape[2] > 2 else 1]
    grey = colours[:, :, :1]
    return grey if np.array_equal(colours, np.broadcast_to(grey, colours.shape)) else colours


def denoise(model, image, relative_noise=1.0):
    """Denoise an `image` of any size. Returns the same shape, type and range.

    `image` is (height, width) or (height, width, channels), where 1 channel is grey, 2 are grey and
    alpha, 3 red, green, blue, and 4 those and alpha; alpha is not touched. It is uint8, uint16 or
    float; a float one is meant to be in [0, 1] but for its noise, and is returned clipped.

    `relative_noise` is the standard deviation of its noise, as a multiple of that which the network
    was trained on. Where it is larger, the network sees the image at so much less contrast. Grey,
    three equal channels included, counts as √3 times as noisy: its noise is the same in all three
    channels, where the network expects it to differ.

    Large ones go through the network in windows with margins as wide as it sees around a pixel, so
    that the result is that of the whole at once.

    Raises Halt for an array of another shape, type or range, and for a network that does not keep
    an image's size.
    """
    image = np.asarray(image)
    _check_image(image)
    source, result = _colours(image), np.array(image, order="C")
    target = result.reshape(*image.shape[:2], -1)  # a view
    target = target[:, :, :3 if target.shape[2] > 2 else 1]  # without alpha
    spread = relative_noise * np.sqrt(3 / source.shape[2])
    contrast, radius = np.float32(1 / max(1, spread)), receptive_radius(model)
    for top in range(0, len(image), WINDOW):
        for left in range(0, image.shape[1], WINDOW):
            above, before = min(radius, top), min(radius, left)
            window = source[top - above:top + WINDOW + radius, left - before:left + WINDOW + radius]
            values = _through_network(model, to_float(window), contrast)
            part = target[top:top + WINDOW, left:left + WINDOW]
            values = values[above:above + len(part), before:before + part.shape[1]]
            part[:] = from_float(values, image.dtype)
    return result


def _check_image(image):
    if image.ndim not in (2, 3) or not image.size or image.ndim == 3 and image.shape[2] > 4:
        raise Halt(f"The array has the shape {image.shape}; an image is (height, width) or "
                   "(height, width, channels) with 1 to 4 channels, and has pixels.")
    if image.dtype not in (np.uint8, np.uint16) and not (
            np.issubdtype(image.dtype, np.floating) and image.min() > -2 and image.max() < 3):
        raise Halt(f"The array is {image.dtype} from {image.min()} to {image.max()}; an image is "
                   "uint8, uint16, or float with values from 0 to 1.")


def _through_network(model, values, contrast):
    """Return what the network makes of `values`, (height, width, 1 or 3), at a `contrast`."""
    offset = (1 - contrast) / 2  # so that middle grey stays what it is
    batch = np.repeat(contrast * values + offset, 3 // values.shape[2], axis=2)
    denoised = model.predict_on_batch(batch[np.newaxis])[0]
    if denoised.shape != batch.shape:
        raise Halt(f"The network makes {denoised.shape} of an image {batch.shape}; a denoiser "
                   "keeps height, width and the three colours.")
    if values.shape[2] == 1:
        denoised = denoised.mean(axis=2, keepdims=True)
    return (denoised - offset) / contrast


def receptive_radius(model):
    """Return how many pixels around a pixel the network sees, at most.

    It may have convolutions with stride 1 and same padding, each of which adds half of dilation ×
    (kernel size - 1), and layers that work on single pixels: five 3×3 convolutions see 5 far.
    """
    if hasattr(model, "kernel_size"):
        return (max(model.dilation_rate) * (max(model.kernel_size) - 1) + 1) // 2
    parts = getattr(model, "layers", [getattr(model, "layer", None)])  # of models and wrappers
    return sum(map(receptive_radius, filter(None, parts)))


# ---- Figures: each returns after drawing, the notebook calls plt.show() --------------------------

NOISY_COLOUR = "#D55E00"  # all of Okabe and Ito's palette, told apart by the colour-blind
NETWORK_COLOURS = {"Model1": "#0072B2", "Model2": "#009E73", "Model3": "#CC79A7"}
OTHER_COLOUR = "#56B4E9"
DPI = 120  # sharp on a high-density screen
ZOOM = (0.12, 0.39)  # where a zoomed crop lies, as fractions of height and width

default_style = plt.style.context("default")  # as a decorator: whatever style the user has set


class _Figure(Figure):
    @default_style  # here, too: some of it is made when it is drawn
    def draw(self, renderer):
        super().draw(renderer)


class _Pictures(_Figure):
    """A figure that notebooks embed as JPEG: a noisy picture takes ten times the room as PNG."""

    def _ipython_display_(self):
        jpeg = _encoded(self, "jpeg", bbox_inches="tight", pil_kwargs={"quality": 90})
        IPython.display.display(IPython.display.Image(jpeg))


@default_style
def _encoded(figure, file_format, **options):
    file = io.BytesIO()
    figure.savefig(file, format=file_format, dpi=DPI, **options)
    return file.getvalue()


def _new_figure(width, height, title, kind=_Figure):
    figure = plt.figure(figsize=(width, height), layout="constrained", dpi=DPI, FigureClass=kind)
    figure.suptitle(title)
    return figure


def colour(name):
    """Return the colour of the network `name`, or the one of all networks without their own."""
    return NETWORK_COLOURS.get(name, OTHER_COLOUR)


@default_style
def plot_pictures(pictures, title, columns=None, width=11):
    """Draw `pictures` of one size, a dict of captions and arrays, in rows of `columns` (or one).

    Each array has a shape and a type that denoise() takes; float values are clipped to [0, 1].
    The figure is `width` inches wide.
    """
    columns = columns or len(pictures)
    rows = -(-len(pictures) // columns)
    height, across = next(iter(pictures.values())).shape[:2]
    size = (width, rows * (width / columns * height / across + 0.3) + 0.4)
    places = _new_figure(*size, title, _Pictures).subplots(rows, columns, squeeze=False).flat
    for axes, (caption, picture) in zip(places, pictures.items()):
        _show_image(axes, picture, caption)
    for axes in places[len(pictures):]:
        axes.set_axis_off()


@default_style
def plot_zoomed(pictures, title):
    """Draw `pictures` as plot_pictures() does, in one row, and below each a crop of it.

    The crop is a fifth of the shorter side, at most 128 pixels.
    """
    shape = next(iter(pictures.values())).shape
    step = max(1, max(shape[:2]) // 1000)  # drawn small: leave out what none sees
    crop = _crop(shape)
    top, left, size = crop[0].start, crop[1].start, crop[0].stop - crop[0].start
    height = min(2, shape[0] / shape[1])
    figure = _new_figure(3.2 * len(pictures), 3.2 * height + 3.9, title, _Pictures)
    places = figure.subplots(2, len(pictures), height_ratios=(height, 1), squeeze=False)
    for above, below, (caption, picture) in zip(*places, pictures.items()):
        _show_image(above, picture[::step, ::step], caption)
        above.add_patch(plt.Rectangle((left / step - 0.5, top / step - 0.5), size / step,
                                      size / step, fill=False, color="yellow", lw=2))
        _show_image(below, picture[crop])


def _show_image(axes, image, title=""):
    colours = np.clip(to_float(_colours(image)), 0, 1)
    axes.imshow(np.repeat(colours, 3 // colours.shape[2], axis=2), interpolation="nearest")
    axes.set_title(title, fontsize=11)
    axes.set_axis_off()


def _crop(shape):
    """Return the slices of a square, a fifth of the shorter side, at most 128 pixels."""
    size = min(128, max(1, min(shape[:2]) // 5))
    top, left = int(ZOOM[0] * (shape[0] - size)), int(ZOOM[1] * (shape[1] - size))
    return np.s_[top:top + size, left:left + size]


@default_style
def _progress_figure(run, denoised):
    """Return the figure of the live display, as PNG."""
    figure = _Figure(figsize=(9, 2.8), layout="constrained")
    curve, place = figure.subplots(1, 2, width_ratios=(5, 2))
    draw_loss(curve, run)
    _show_image(place, denoised, "a part of the picture, denoised")
    return _encoded(figure, "png")


@default_style
def plot_curves(run):
    """Draw the training loss and learning rate and the validation PSNR of a Run over its epochs.

    The axes are the same for all runs with the same noise and number of epochs, unless one rises by
    more than 10 dB.
    """
    left, right = _new_figure(11, 3.6, f"{run.model} on {run.data}").subplots(
        1, 2, gridspec_kw={"wspace": 0.08})
    draw_loss(left, run)
    left.set_title("Loss: lower is better")
    rate = left.twinx()
    epochs, _, rates = np.transpose(run.curve)
    rate.plot(epochs, rates, color="grey", lw=1, ls=":")
    rate.set(ylabel="learning rate (dotted)", ylim=(0, 1.6 * max(rates) or 1))
    draw_psnr(right, run, f"{run.validation_images:,} validation images")
    right.axhline(run.noisy_psnr, color=NOISY_COLOUR, ls="--", label="noisy input")
    right.set(title="PSNR: higher is better",
              ylim=(run.noisy_psnr - 1, max(run.noisy_psnr + 10, *run.psnr)))
    right.legend(fontsize=9, loc="center right")


def draw_loss(axes, *runs):
    """Draw the training loss of Runs, and the loss of the noisy input, over epochs into `axes`."""
    for run in runs:
        epochs, losses, _ = np.reshape(run.curve, (-1, 3)).T
        axes.plot(epochs, losses, color=colour(run.model), label=f"{run.model}: training batches")
    noisy = 10 ** (-run.noisy_psnr / 10)
    axes.axhline(noisy, color=NOISY_COLOUR, ls="--", label="noisy input")
    axes.set(ylabel="mean squared error", yscale="log", ylim=(noisy / 20, noisy * 40),
             xlim=(1 / POINTS_PER_EPOCH, max(each.epochs for each in runs)))
    axes.legend(fontsize=9, loc="upper right")
    _mark_epochs(axes)


def draw_psnr(axes, run, label=None, style="-"):
    """Draw the PSNR of a Run's validation images over its epochs into `axes`."""
    axes.plot(range(1, len(run.psnr) + 1), run.psnr, ls=style, marker=".", lw=1, ms=4,
              color=colour(run.model), label=label)
    axes.set_ylabel("PSNR (dB)")
    _mark_epochs(axes)


def _mark_epochs(axes):
    axes.set(xlabel="epoch", xscale="log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")
    axes.grid(alpha=0.3)


# By this line a notebook knows that the file is the one that belongs to it.
BUNDLE = "denoising coursework 10"
