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
import socket
import sys
import textwrap
import time
import zipfile
import zlib
from typing import NamedTuple

import IPython
import matplotlib.pyplot as plt
import numpy as np
import skimage.data
import skimage.filters
import skimage.metrics
import skimage.restoration
from IPython.display import Image as PngImage
from IPython.display import display
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib_inline.backend_inline import set_matplotlib_formats
from PIL import Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

# ---- Import Keras without the backend's chatter --------------------------------------------------


@contextlib.contextmanager
def _silenced_stderr():
    """Drop what native code writes to the process's standard error.

    TensorFlow prints lines about oneDNN and CUDA while it starts, past Python and whatever its
    own log level is. Exceptions are not affected.
    """
    kept = os.dup(2)
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
# TensorFlow warns when it traces anew, as it has to for each new network and size of picture.
logging.getLogger("tensorflow").addFilter(lambda record: "retracing" not in record.getMessage())

BUNDLE = "denoising coursework 4"  # each notebook checks this: other projects have a common.py too

# ---- Settings that come from outside the notebook ------------------------------------------------

VARIABLES = {"DENOISE_EPOCHS", "DENOISE_QUICK", "DENOISE_DATA", "DENOISE_CHECKPOINTS"}
QUICK_EPOCHS = 2
QUICK_TRAIN_IMAGES = 1600
QUICK_TEST_IMAGES = 200
DRIVE = pathlib.Path("/content/drive")  # where Colab mounts Google Drive


def quick_run():
    """Say whether the environment asks for a smoke run: True if DENOISE_QUICK is 1.

    Raises ValueError for a DENOISE_QUICK that is neither 0 nor 1.
    """
    value = os.environ.get("DENOISE_QUICK") or "0"
    if value not in ("0", "1"):
        raise ValueError(f"DENOISE_QUICK is {value!r}; set it to 1 for a smoke run, or unset it.")
    return value == "1"


def planned_epochs(epochs):
    """Return and print the number of epochs to train: `epochs`, or what the environment asks for.

    DENOISE_EPOCHS replaces `epochs`; a quick run caps it at QUICK_EPOCHS.
    Raises ValueError unless the number is a whole one of at least 1.
    """
    value = str(os.environ.get("DENOISE_EPOCHS") or epochs)
    if not value.isdecimal() or int(value) < 1:
        raise ValueError(f"The number of epochs (EPOCHS or DENOISE_EPOCHS) is {value!r}; "
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
    /content/drive brings up the dialog that mounts Google Drive.
    """
    if quick_run():
        return output_path("checkpoints")
    path = pathlib.Path(os.environ.get("DENOISE_CHECKPOINTS") or folder).expanduser()
    if "google.colab" in sys.modules and path.is_relative_to(DRIVE):
        importlib.import_module("google.colab.drive").mount(str(DRIVE))
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

    Raises ValueError for an environment variable that looks like one of ours and is not.
    """
    unknown = {name for name in os.environ if name.startswith("DENOISE_")} - VARIABLES
    if unknown:
        raise ValueError(f"There is no setting {', '.join(sorted(unknown))}. The environment "
                         f"variables are {', '.join(sorted(VARIABLES))}.")
    print(f"Python {sys.version.split()[0]}, NumPy {np.__version__}, {describe_backend()}")
    if quick_run():
        print("Quick run (DENOISE_QUICK=1): few images and epochs, every file goes to build/.\n"
              "It shows that the notebook works, not what the network can do.")


# ---- Data ----------------------------------------------------------------------------------------

PATCH_SIZE = 32
TRAIN_PHOTOS = ("coffee", "hubble_deep_field", "retina")
TEST_PHOTOS = ("chelsea", "rocket")
FULL_SIZE = {"CIFAR-10": (50_000, 10_000)}


class DataError(ValueError):
    """The data that DENOISE_DATA names cannot be used."""


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

    Returns a Data. Raises DataError if the named npz is not what it should be.
    """
    source = os.environ.get("DENOISE_DATA")
    if source == "photos":
        data = _photographs()
    elif source:
        data = _read_npz(pathlib.Path(source).expanduser())
    elif quick_run() and not _keras_has_cifar10():
        data = _photographs()
    else:
        data = _cifar10_or_photographs()
    if quick_run():
        data = Data(data.name, data.train[:QUICK_TRAIN_IMAGES], data.test[:QUICK_TEST_IMAGES])
    return data


def _read_npz(path):
    expected = ("expected an npz file with the arrays x_train and x_test, uint8, of shape "
                f"(number, {PATCH_SIZE}, {PATCH_SIZE}, 3)")
    if not path.is_file():
        raise DataError(f"DENOISE_DATA names {path}, which is not a file; {expected}, "
                        "or the word photos.")
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path} is no npz file, or only part of one; {expected}.")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ("x_train", "x_test") if name in file.files}
    except (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} is damaged ({error}); {expected}.") from error
    for name in ("x_train", "x_test"):
        if name not in arrays:
            raise DataError(f"{path} has no array {name}; {expected}.")
        images = np.asarray(arrays[name])
        if images.dtype != np.uint8 or images.shape[1:] != (PATCH_SIZE, PATCH_SIZE, 3):
            raise DataError(f"{name} in {path} is {images.dtype} of shape {images.shape}; "
                            f"{expected}.")
        if not len(images):
            raise DataError(f"{name} in {path} is empty; {expected}.")
    name = "CIFAR-10" if path.stem.lower() in ("cifar10", "cifar-10") else path.stem
    return Data(name, arrays["x_train"], arrays["x_test"])


def _keras_has_cifar10():
    home = pathlib.Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser() / "datasets"
    archive = home / "cifar-10-batches-py-target_archive"  # Keras downloads unless it is there
    batch = home / "cifar-10-batches-py-target" / "cifar-10-batches-py" / "test_batch"
    return archive.exists() and batch.exists()


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

    Both have the same shape and are float in [0, 1], or both uint8. PSNR = 10·log10(peak² / MSE),
    with one mean squared error over all that is given (scikit-image's formula).
    """
    peak = 255 if clean.dtype == np.uint8 else 1
    return float(skimage.metrics.peak_signal_noise_ratio(clean, images, data_range=peak))


class Scores(NamedTuple):
    """How close images are to the clean ones.

    psnr: PSNR of the mean squared error over all images, in dB ("mean-MSE").
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


def colour_cast(clean, images, noise_std):
    """Return the mean error of red, green and blue in grey levels of 255: float64 (3,).

    `clean` and `images` (…, 3) are float in [0, 1]. Values of `images` within three `noise_std`
    (at most 0.3) of black or white are left out: a file clips the noise there, and its mean is not
    zero. (Not by their `clean` value: the best estimates of values chosen by what is to be
    estimated lean towards those left out.)
    """
    inside = np.abs(images - 0.5) < 0.5 - min(3 * noise_std, 0.3)
    axes = tuple(range(clean.ndim - 1))
    return 255 * np.mean(images - clean, axis=axes, where=inside, dtype=np.float64)


# ---- Training ------------------------------------------------------------------------------------

MONITORED_IMAGES = 2000
POINTS_PER_EPOCH = 20
STEPS_PER_CALL_ON_GPU = 16  # so that the GPU does not wait for Python after every step
HISTORY = ("loss", "psnr", "learning_rate", "seconds")  # what a run records of each epoch
REFERENCE = pathlib.Path("weights")


class CheckpointError(OSError):
    """A checkpoint cannot be written."""


class WeightsError(ValueError):
    """The weights in weights/ cannot be used in this notebook."""


class Batches(keras.utils.PyDataset):
    """One epoch of training batches in an order drawn from the seed and the epoch.

    Each batch is (clean, clean), float32 in [0, 1]: the network makes its own noise, so the clean
    images are both its input and its target. Only the batches at hand are held as float.
    """

    def __init__(self, images, batch_size, seed, epoch):
        # Two threads make batches ahead. With the default of one, TensorFlow's tuner of the input
        # sleeps on when an epoch ends, and training waits until it wakes up: up to a minute.
        super().__init__(workers=2, max_queue_size=2 * STEPS_PER_CALL_ON_GPU)
        self.images = images
        self.batch_size = batch_size
        self.order = np.random.default_rng([seed, epoch]).permutation(len(images))

    def __len__(self):
        return steps_per_epoch(len(self.images), self.batch_size)

    def __getitem__(self, index):
        start = index * self.batch_size
        batch = to_float(self.images[self.order[start:start + self.batch_size]])
        return batch, batch


def steps_per_epoch(images, batch_size):
    """Return how many batches hold `images` images; the last batch may be smaller."""
    return -(-images // batch_size)


def train(model, data, *, epochs, batch_size, noise_std, seed, training="resume",
          checkpoints="checkpoints"):
    """Train a compiled `model` on the training images of `data` under a live display.

    After each epoch, the PSNR on the first 2,000 test images (with fixed noise of `noise_std`)
    joins the history, and a checkpoint is written to the folder `checkpoints`. Stopping the cell
    (KeyboardInterrupt) puts the network back to its last finished epoch.

    `training` is "resume": a run that was stopped or killed goes on after its last finished epoch,
    and a finished one is not trained again; "afresh": the run starts anew, and its checkpoints take
    the place of earlier ones; or "reference": nothing is trained, see load_reference().

    Returns the run: a dict with the settings, the data's name, backend, device and date, and the
    lists loss, psnr (dB), learning_rate and seconds (one value an epoch) and curve (pairs of
    epoch, as a fraction, and loss). Raises RuntimeError for a network that another run has
    trained, CheckpointError if a checkpoint cannot be written, and ValueError for another
    `training`.
    """
    settings = {"epochs": epochs, "batch_size": batch_size, "noise_std": noise_std, "seed": seed}
    if training == "reference":
        run = load_reference(model, batch_size=batch_size, noise_std=noise_std, seed=seed)
        print(f"Not trained here: these are the weights of an earlier run.\n{describe_run(run)}")
        return run
    if training not in ("resume", "afresh"):
        raise ValueError(f'TRAINING is {training!r}; it must be "resume", "afresh" or "reference".')
    clean = to_float(data.test[:MONITORED_IMAGES])
    noisy = add_noise(clean, noise_std, seed)
    path = checkpoint_folder(checkpoints) / _checkpoint_name(model, data, settings)
    model.optimizer.build(model.trainable_variables)
    # On JAX, the first call that needs the loss builds it, which changes the state of the noise:
    # have that done before a checkpoint is restored.
    model.evaluate(clean[:1], clean[:1], verbose=0)
    found = _newest_checkpoint(path) if training == "resume" else None
    if found:
        run, kept = found
        _restore(model, kept)
        if len(run["loss"]) < epochs and describe_backend() not in run["backend"]:
            run["backend"] += f", then {describe_backend()}"
    else:
        _require_untrained(model)
        if training == "afresh":
            print('Starting afresh. Now set TRAINING = "resume", so that running all cells again '
                  "goes on\nfrom where this run will have got to.")
        run = _new_run(model, data, settings, psnr(clean, noisy))
        kept = _snapshot(model, run)
        _write_checkpoint(path, kept)  # now, so that a full disk shows before the first epoch
    model.has_been_trained = True
    live = _LiveDisplay(run)
    live.announce_start(path)
    try:
        for epoch in range(len(run["loss"]), epochs):
            started = time.perf_counter()
            batches = Batches(data.train, batch_size, seed, epoch)
            run["loss"].append(_fit(model, batches, epoch, live))
            run["psnr"].append(psnr(clean, model.predict(noisy, batch_size=100, verbose=0)))
            run["learning_rate"].append(float(model.optimizer.learning_rate))
            run["seconds"].append(time.perf_counter() - started)
            kept = _snapshot(model, run)
            _write_checkpoint(path, kept)
            live.show_curves()
    except KeyboardInterrupt:
        run = live.run = json.loads(kept["run"])
        _restore(model, kept)
        live.show_curves()
        live.status.show(_stopped_message(run, training))
        return run
    live.status.show(describe_run(run))
    return run


def _fit(model, batches, epoch, live):
    """Train for one epoch. Returns its mean loss."""
    # Only here: Keras's predict() and evaluate() lose images with several steps a call.
    model.steps_per_execution = STEPS_PER_CALL_ON_GPU if _gpus() else 1
    try:
        fitted = model.fit(batches, initial_epoch=epoch, epochs=epoch + 1, shuffle=False,
                           verbose=0, callbacks=[live])
    finally:
        model.steps_per_execution = 1
    return fitted.history["loss"][-1]


def describe_run(run):
    """Return the text that says what a finished run was: epochs, data, device, date and result."""
    return (f"Trained for {count(len(run['loss']), 'epoch')} on {run['data']} "
            f"({run['train_images']:,} images) in {duration(sum(run['seconds']))}\n"
            f"begun on {run['date']}, with {run['backend']}.\n"
            f"Loss {run['loss'][-1]:.6f}; PSNR {run['psnr'][-1]:.2f} dB on "
            f"{run['monitored_images']:,} noisy test images.")


def load_reference(model, *, batch_size, noise_std, seed):
    """Load into `model` the weights in weights/, and return their run as train() does.

    The files are ModelX.weights.h5 and ModelX.csv, by the model's name, in weights/ or, if they are
    not there (in Colab), right beside the notebook. Raises WeightsError if they are missing or
    damaged, come from other settings, or do not denoise noisy.png as they did in their network.
    """
    weights, history = (_shipped(f"{model.name}{kind}") for kind in (".weights.h5", ".csv"))
    try:
        run = read_history(history)
    except ValueError as error:
        raise WeightsError(f"{history} is damaged: {error}") from error
    for name, value in {"batch_size": batch_size, "noise_std": noise_std, "seed": seed}.items():
        if run.get(name) != value:
            raise WeightsError(f"{weights} comes from a run with {name.upper()} = {run.get(name)}; "
                               f"here it is {value}. Set it back, or set TRAINING = "
                               '"resume" to train.')
    model.has_been_trained = True
    try:
        # A network without an optimizer, or Keras warns that the file has none.
        keras.Model(model.input, model.output).load_weights(weights)
    except Exception as error:  # h5py and Keras raise errors of many kinds
        reason = str(error).partition("\n")[0]  # Keras goes on with all the weights' values
        raise WeightsError(f"{weights} does not fit this network, or is damaged. To train this "
                           f'network, set TRAINING = "resume". ({reason})') from error
    reached = psnr(clean_picture(), denoise(model, noisy_picture()))
    if abs(reached - run["picture_psnr"]) > 0.01:
        raise WeightsError(f"{weights} belongs to another network than this one: here it brings "
                           f"noisy.png to {reached:.2f} dB, not to {run['picture_psnr']:.2f} dB.")
    return run


def _shipped(name):
    for path in (REFERENCE / name, pathlib.Path(name)):
        if path.is_file():
            return path
    raise WeightsError(f"There is no {name} in {REFERENCE}/ or beside this notebook. Put it there, "
                       'or set TRAINING = "resume" to train.')


def read_history(path):
    """Read weights/ModelX.csv. Returns the run, as train() does.

    Raises ValueError if the file has not as many epochs as it says.
    """
    lines = pathlib.Path(path).read_text(encoding="utf-8").splitlines()
    header = [line[2:].split(": ", 1) for line in lines if line.startswith("# ")]
    run = {name: json.loads(value) for name, value in header}
    rows = [line.split(",") for line in lines[len(header) + 1:]]
    if len(rows) != run.get("epochs"):
        raise ValueError(f"{len(rows)} epochs in {path}, and {run.get('epochs')} in its header")
    epochs, *columns = ([float(value) for value in column] for column in zip(*rows))
    run.update(zip(HISTORY, columns, strict=True))
    run["curve"] = [list(point) for point in zip(epochs, run["loss"])]
    return run


def _stopped_message(run, training):
    resume = "" if training == "resume" else ', with TRAINING = "resume",'
    if not run["loss"]:
        return ("Stopped before the first epoch had finished: the network is untrained.\n"
                f"Run this cell again{resume} or set a smaller EPOCHS and run all cells again.")
    return (f"Stopped. The network is as it was after epoch {len(run['loss'])} of {run['epochs']}: "
            f"the cells below can use it.\nRun this cell again{resume} to go on from there.")


def _new_run(model, data, settings, noisy_psnr):
    return {
        "model": model.name, "data": data.name, "train_images": len(data.train),
        "monitored_images": min(MONITORED_IMAGES, len(data.test)), **settings,
        "steps": steps_per_epoch(len(data.train), settings["batch_size"]),
        "backend": describe_backend(), "date": datetime.date.today().isoformat(),
        "noisy_psnr": noisy_psnr,
        **{name: [] for name in HISTORY}, "curve": [],
    }


def _require_untrained(model):
    """Raise RuntimeError if a new run would start from weights that another one has trained."""
    if hasattr(model, "has_been_trained") or int(model.optimizer.iterations):
        raise RuntimeError("This network has been trained before, in another run. To train anew, "
                           "run the cell that builds it and all cells after that one.")


def _checkpoint_name(model, data, settings):
    """Name the checkpoint after everything that shapes the run, so that no other run finds it."""
    optimizer = keras.optimizers.serialize(model.optimizer)
    del optimizer["config"]["name"]  # Keras counts: adam, adam_1, … each time the cell is run
    loss = model.get_compile_config()["loss"]
    shape = json.dumps([model.get_config(), optimizer, loss, settings], sort_keys=True)
    key = hashlib.sha256(shape.encode())
    key.update(np.ascontiguousarray(data.train))
    key.update(np.ascontiguousarray(data.test))
    return f"{model.name}-{key.hexdigest()[:16]}.npz"


def _all_variables(model):
    # Of the ways Keras offers, only this one includes the state of the noise layer's generator.
    return model.variables + model.optimizer.variables


def _snapshot(model, run):
    arrays = {f"variable{i:03d}": np.array(keras.ops.convert_to_numpy(variable))
              for i, variable in enumerate(_all_variables(model))}
    return {"run": json.dumps(run), **arrays}


def _restore(model, snapshot):
    for i, variable in enumerate(_all_variables(model)):
        variable.assign(snapshot[f"variable{i:03d}"])


def _write_checkpoint(path, snapshot):
    """Write `snapshot` to `path`; the checkpoint that was there stays on as the previous one."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            with open(temporary, "wb") as file:
                np.savez(file, **snapshot)
                file.flush()
                os.fsync(file.fileno())  # a power cut must not leave an empty file by that name
            if path.exists():
                os.replace(path, _previous(path))
    except OSError as error:
        raise CheckpointError(
            f"The checkpoint {path} cannot be written: {error}. Make room there and run this cell "
            f'again with TRAINING = "resume". Or move the files {path.stem}.* that are there to '
            "another folder, name it in CHECKPOINTS, and run all cells again, likewise.") from error


def _previous(path):
    return path.with_suffix(".previous.npz")


def _newest_checkpoint(path):
    """Read the newest sound checkpoint of the run `path`. Returns (run, snapshot), or None.

    A damaged one is reported and set aside.
    """
    for candidate in (path, _previous(path)):
        if candidate.exists():
            content = io.BytesIO(candidate.read_bytes())  # if this fails, it need not be damaged
            try:
                return _read_checkpoint(content)
            except Exception as error:  # a damaged zip file raises errors of many kinds
                aside = candidate.with_suffix(".damaged")
                os.replace(candidate, aside)
                print(f"A checkpoint is damaged ({error}) and was set aside as {aside}.")
    return None


def _read_checkpoint(file):
    with np.load(file, allow_pickle=False) as arrays:
        snapshot = dict(arrays)
    snapshot["run"] = str(snapshot["run"])
    return json.loads(snapshot["run"]), snapshot


@contextlib.contextmanager
def replacing(path):
    """Give a temporary path that takes the place of `path` when the block ends without an error.

    A block that fails leaves `path` as it was, and nothing else.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


class _StatusLine:
    """A text that is updated in place in a notebook, and printed line by line elsewhere."""

    def __init__(self, text):
        self.in_notebook = IPython.get_ipython() is not None
        if self.in_notebook:
            self.display = display({"text/plain": text}, raw=True, display_id=True)

    def show(self, text):
        if self.in_notebook:
            self.display.update({"text/plain": text}, raw=True)
        else:
            print(text)


class _LiveDisplay(keras.callbacks.Callback):
    """A line of text and the curves, updated in place while the network trains."""

    def __init__(self, run):
        super().__init__()
        self.run = run
        self.in_notebook = IPython.get_ipython() is not None
        self.status = _StatusLine("Starting …")
        if self.in_notebook:
            self.curves = display({"text/plain": ""}, raw=True, display_id=True)
        self.first_step = None  # the first step of this call: it compiles, so it is not timed
        self.shown = 0.0
        self.drawn = 0.0

    def announce_start(self, path):
        finished = len(self.run["loss"])
        if finished:
            self.show_curves()
        if finished == self.run["epochs"]:
            print(f"Found among the checkpoints, finished, so it was not trained again: {path}.\n"
                  'To train anew, set TRAINING = "afresh" and run all cells again.')
        elif finished:
            print(f"Going on after epoch {finished} of {self.run['epochs']}.")

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
        self.last_step, self.last_sum = 0, 0.0

    def on_train_batch_end(self, batch, logs=None):
        at_once = self.model.steps_per_execution
        # Of the steps of one call, older Keras names the first here, newer Keras the last.
        step = min((batch // at_once + 1) * at_once, self.run["steps"])
        now = time.perf_counter()
        if self.first_step is None:
            self.first_step, self.start = self.epoch * self.run["steps"] + step, now
        self._extend_curve(step, logs["loss"])
        if now - self.shown > 1:
            self.shown = now
            self.status.show(self._progress(step, logs["loss"], now))
        if now - self.drawn > 10:
            self.drawn = now
            self.show_curves()

    def _extend_curve(self, step, mean_loss):
        """Add the mean loss since the last point; Keras reports the mean since the epoch began."""
        steps = self.run["steps"]
        if (step - self.last_step) * POINTS_PER_EPOCH >= steps or step == steps:
            recent = (mean_loss * step - self.last_sum) / (step - self.last_step)
            self.run["curve"].append([self.epoch + step / steps, recent])
            self.last_step, self.last_sum = step, mean_loss * step

    def _progress(self, step, loss, now):
        run = self.run
        done = self.epoch * run["steps"] + step - self.first_step
        text = (f"Epoch {self.epoch + 1}/{run['epochs']}, step {step:,}/{run['steps']:,}   "
                f"loss {loss:.6f}   ")
        if run["psnr"]:
            text += (f"\nPSNR {run['psnr'][-1]:.2f} dB on {run['monitored_images']:,} noisy test "
                     "images   ")
        if not done:
            return text
        per_step = (now - self.start) / done
        left = per_step * (run["steps"] * run["epochs"] - self.epoch * run["steps"] - step)
        text += f"{duration(left)} left"
        if left > 3600:
            an_epoch = per_step * run["steps"]
            shorter = max(1, int(1800 / an_epoch))
            text += (f"\nToo long? Stop this cell, set EPOCHS = {shorter} "
                     f"(about {duration(shorter * an_epoch)}) and run all cells: that starts anew.")
        return text

    def show_curves(self):
        if not self.in_notebook:
            return
        if not self.run["curve"]:
            self.curves.update({"text/plain": ""}, raw=True)
        else:
            figure = Figure(figsize=(9, 2.6), layout="constrained")
            _draw_curves(figure, self.run)
            png = io.BytesIO()
            figure.savefig(png, dpi=80)
            self.curves.update(PngImage(png.getvalue()))


def duration(seconds):
    """Return `seconds` in words: "42 s", "7 min", "3 h 05 min"."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def count(number, noun):
    """Return a number with its noun: "1 epoch", "1,200 epochs"."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


# ---- Pictures: read and write --------------------------------------------------------------------

NOISY_PICTURE = "noisy.png"
FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "GIF", "BMP")
COLOURS = {1: 1, 2: 1, 3: 3, 4: 3}  # of so many channels: one may be alpha, which is none


class PictureError(ValueError):
    """A picture cannot be denoised as it is, or not under the name that was given."""


class PictureFileError(OSError):
    """A picture file cannot be read or written: no permission, no room."""


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


def open_picture(name):
    """Read the picture file `name`: PNG, JPEG, TIFF, WebP, GIF or BMP, 8 bits or 16-bit grey.

    Returns (height, width) if it is grey, (height, width, 2) with alpha, (height, width, 3) if it
    has colours, (height, width, 4) with alpha; uint16 for 16 bits, else uint8. Palettes and 1 bit
    are written out as colours and greys. A photograph is turned upright as its EXIF data say. Of
    several frames or pages it is the first, and a line says so. A missing noisy.png is made anew.

    Raises PictureError, which says what to do, for a file that is missing, damaged, or of another
    kind, and PictureFileError for one that the system does not let us read.
    """
    return _read_picture(name)[0]


def _read_picture(name):
    """Read a picture as open_picture() does. Returns its pixels and its ICC profile or None."""
    with _naming(name, "read"):
        path = pathlib.Path(name).expanduser()
        if str(name) == NOISY_PICTURE and not path.exists():
            save_picture(noisy_picture(), path)
        if path.is_dir():
            raise PictureError(f"{name} is a folder: name a picture in it.")
        if not path.is_file():
            raise PictureError(f"There is no picture {name} in {pathlib.Path.cwd()}: put it there, "
                               "or name another (in the notebook's settings, it is PICTURE).")
        content = path.read_bytes()  # given a path, Pillow scrambles some TIFF files it turns
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
            picture.verify()  # a PNG's checksums, which decoding passes over
        with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
            if getattr(picture, "is_animated", False):
                print(f"{name} holds several pictures; this is the first of them.")
            pixels = _pixels(name, picture)
            return pixels, _profile(picture, pixels)
    except PictureError:
        raise
    except Exception as error:  # Pillow raises errors of many kinds for a damaged file
        unknown = isinstance(error, UnidentifiedImageError)
        reason = "it begins like none" if unknown else error
        raise PictureError(f"{name} cannot be read as a picture ({reason}). Either it is damaged: "
                           f"fetch it again; or it is not one of {', '.join(FORMATS)}: convert it."
                           ) from error


@contextlib.contextmanager
def _naming(name, action):
    """Raise what the system has against the file `name` as an error of our own that names it."""
    try:
        yield
    except (PictureError, PictureFileError):
        raise
    except (OSError, RuntimeError, ValueError) as error:  # no permission; no such ~user; a NUL
        reason = getattr(error, "strerror", None) or error
        raise PictureFileError(f"{name} cannot be {action}: {reason}") from error


def _profile(picture, pixels):
    """Return the ICC profile of an opened `picture`, if it is one that suits its `pixels`."""
    profile = picture.info.get("icc_profile")
    made_grey = picture.mode in ("P", "PA") and _colours(pixels).shape[2] == 1
    return profile if isinstance(profile, bytes) and not made_grey else None


def _pixels(name, picture):
    """Decode an opened `picture` into the array that open_picture() returns."""
    depth, transparent = _bits(picture), "transparency" in picture.info
    if depth == 16 and picture.mode[0] == "I" and not transparent and not _misread(picture):
        return np.asarray(_upright(picture)).astype(np.uint16)
    target = {"1": "LA" if transparent else "L", "L": "LA" if transparent else "L", "LA": "LA",
              "P": "RGBA" if transparent else "RGB", "PA": "RGBA",
              "RGB": "RGBA" if transparent else "RGB", "RGBA": "RGBA"}.get(picture.mode)
    if depth > 8 or target is None or _misread(picture):
        raise PictureError(_refusal(name, picture.mode, depth))
    if transparent and target == "LA":  # Pillow widens 1, 2 and 4 bits to 8, but not this value
        widened = {"1": 255, "L;2": 85, "L;4": 17}.get(_raw_mode(picture), 1)
        picture.info["transparency"] = min(255, widened * picture.info["transparency"])
    pixels = np.array(_upright(picture).convert(target))
    if picture.mode in ("P", "PA") and not np.ptp(_colours(pixels), axis=2).any():
        return pixels[:, :, ::3] if pixels.shape[2] == 4 else pixels[:, :, 0]  # a palette of greys
    return pixels


def _upright(picture):
    """Return `picture` turned as its EXIF data say. Pillow turns a TIFF file when it loads it."""
    picture.load()
    return picture if picture.format == "TIFF" else ImageOps.exif_transpose(picture)


def _raw_mode(picture):
    """Return how the file holds a pixel, in Pillow's words, such as RGB;16B for 16-bit colour."""
    arguments = picture.tile[0][3] if picture.tile else picture.mode
    return str(arguments[0] if isinstance(arguments, tuple) else arguments)


def _bits(picture):
    """Return the bits a channel in the file: Pillow opens 16-bit colour as 8-bit without a word."""
    if picture.format == "TIFF":
        return max(picture.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (1,)))
    return 16 if picture.format == "PNG" and ";16" in _raw_mode(picture) else 8


def _misread(picture):
    """Say whether `picture` is a TIFF file that Pillow opens, but as something else.

    That is one with signed values, with 16 bits where 0 is white, or with channels it leaves out.
    """
    if picture.format != "TIFF":
        return False
    tags = picture.tag_v2
    return (set(tags.get(TiffImagePlugin.SAMPLEFORMAT, (1,))) != {1}
            or tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0 and _bits(picture) > 8
            or tags.get(TiffImagePlugin.SAMPLESPERPIXEL, 1) > len(picture.getbands()))


def _refusal(name, mode, depth):
    if depth > 8:
        return (f"{name} has {depth} bits a channel. Only grey without transparency may have more "
                "than 8, namely 16. Save the picture as RGB or grey with 8 bits a channel, in an "
                "image editor.")
    if mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        return (f"{name} has the colour mode {mode}, and these networks know RGB and grey. Convert "
                f'it: from PIL import Image; Image.open("{name}").convert("RGB").save("rgb.png", '
                "icc_profile=None); then use rgb.png.")
    return (f"{name} is a picture of a rare kind (Pillow's mode {mode}, or a TIFF file with signed "
            "values or further channels). Save it as RGB or grey in an image editor.")


def save_picture(picture, path, icc_profile=None):
    """Write `picture` as a PNG file, whole or not at all.

    It has one of the shapes and types that open_picture() returns. Raises PictureFileError if the
    file cannot be written.
    """
    try:
        with replacing(pathlib.Path(path)) as temporary:
            Image.fromarray(picture).save(temporary, format="PNG", icc_profile=icc_profile)
    except OSError as error:
        raise PictureFileError(f"{path} cannot be written: {error.strerror or error}") from error


# ---- Pictures: estimate their noise --------------------------------------------------------------

NOISE_CROP = 512
NOISE_LEVELS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)


def estimate_noise(picture):
    """Estimate the standard deviation of Gaussian noise in a `picture`, in units of [0, 1].

    It has a shape and a type that denoise() takes. scikit-image's estimate_sigma (the median of
    the finest wavelet coefficients: Donoho and Johnstone, Biometrika 1994) reads too little where
    black and white have cut noise off. So it is read against itself: which noise, added to a
    smoothed copy and clipped, gives the same estimate? Fine texture still counts as noise.

    Looks at no more than the middle 512×512 pixels. Returns a float, or None for a picture of less
    than 16 pixels a side.
    """
    height, width = picture.shape[:2]
    if min(height, width) < 16:
        return None
    top, left = max(0, (height - NOISE_CROP) // 2), max(0, (width - NOISE_CROP) // 2)
    values = to_float(_colours(picture)[top:top + NOISE_CROP, left:left + NOISE_CROP]).clip(0, 1)
    smooth = skimage.filters.gaussian(values, 2, channel_axis=-1)
    noise = np.random.default_rng(0).standard_normal(values.shape, dtype=np.float32)
    estimates = [_estimate_sigma(np.clip(smooth + level * noise, 0, 1)) for level in NOISE_LEVELS]
    return float(np.interp(_estimate_sigma(values), [0, *estimates], [0, *NOISE_LEVELS]))


def _estimate_sigma(values):
    return skimage.restoration.estimate_sigma(values, average_sigmas=True, channel_axis=-1)


def describe_noise(picture, noise_std):
    """Return in words how the noise of `picture` compares with the `noise_std` of the training."""
    estimate = estimate_noise(picture)
    if estimate is None:
        return "The picture is too small to estimate its noise."
    text = f"Its noise is about {estimate:.2f}; the network was trained on {noise_std:.2f}."
    if estimate < 0.3 * noise_std:
        text += "\nThat is hardly any: the result may well be worse than the picture itself."
    elif estimate < 0.7 * noise_std:
        text += "\nThat is weaker: expect the network to take away fine detail along with it."
    elif estimate > 1.2 * noise_std:
        text += ("\nThat is stronger: expect much of it to stay, unless you denoise at a scale "
                 f"of {noise_std / estimate:.2f}.")
    return text


# ---- Pictures: denoise ---------------------------------------------------------------------------

WINDOW = 512  # pixels a side of what the network sees at once
STATUS_INTERVAL = 3  # seconds
POINTWISE = {"InputLayer", "GaussianNoise", "GaussianDropout", "Dropout", "SpatialDropout2D",
             "Activation", "ReLU", "LeakyReLU", "ELU", "Identity", "Rescaling", "Add",
             "Subtract", "Multiply", "Average", "Maximum", "Minimum"}
ALONG_AN_AXIS = {"BatchNormalization", "Concatenate"}
CONVOLUTIONS = {"Conv2D", "DepthwiseConv2D", "SeparableConv2D"}


def denoise(model, image, scale=1.0):
    """Denoise an `image` of any size. Returns the same shape, type and range.

    `image` is (height, width) or (height, width, channels), where 1 channel is grey, 2 are grey and
    alpha, 3 red, green, blue, and 4 those and alpha; alpha is not touched. It is uint8, uint16 or
    float; a float one is meant to be in [0, 1] but for its noise, and is returned clipped.

    Large ones go through the network in windows that overlap by as much as it reaches, so that the
    result is that of the whole at once (see reach()). If it takes long, its progress is shown.

    `scale` (above 0, at most 1) is for noise stronger than the network was trained on: the contrast
    that the network sees, so that noise of 0.2 is 0.1 at a scale of 0.5. The contrast of grey is
    1/√3 of that: its noise is the same in all three channels, where the network expects it to
    differ, so that the brightness of grey is √3 times as noisy. Three equal channels are grey, too.

    Raises PictureError for an array of another shape, type or range, and ValueError for another
    `scale` or a network that does not keep an image's size.
    """
    image = np.asarray(image)
    _check_image(image)
    if not 0 < scale <= 1:
        raise ValueError(f"scale is {scale}; it must be above 0 and at most 1.")
    result = np.array(image, order="C")
    source, target = _colours(image), _colours(result)
    if (source == source[:, :, :1]).all():
        source = source[:, :, :1]
    contrast = np.float32(scale / np.sqrt(3 / source.shape[2]))
    windows = _windows(model, image.shape[:2])
    progress = _Progress(len(windows))
    for window, part, place in windows:
        values = _through_network(model, to_float(source[window]), contrast)
        target[place] = from_float(values[part], image.dtype)
        progress.step()
    return result


def _check_image(image):
    floating = np.issubdtype(image.dtype, np.floating)
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in COLOURS):
        raise PictureError(f"The array has the shape {image.shape}; an image is (height, width) or "
                           "(height, width, channels) with 1 to 4 channels.")
    if 0 in image.shape:
        raise PictureError(f"The array has the shape {image.shape}: there are no pixels in it.")
    if not floating and image.dtype not in (np.uint8, np.uint16):
        raise PictureError(f"The array is {image.dtype}; an image is uint8, uint16, or float with "
                           "values from 0 to 1.")
    if floating and not (image.min() >= -2 and image.max() <= 3):  # not so for NaN either
        raise PictureError(f"The array holds values from {image.min()} to {image.max()}; a float "
                           "image has values from 0 to 1, and noise does not lead far from there.")


def _colours(image):
    """Return a view of the colours of `image`, without alpha: (height, width, 1 or 3)."""
    channels = image if image.ndim == 3 else image[:, :, np.newaxis]
    return channels[:, :, :COLOURS[channels.shape[2]]]


def _through_network(model, values, contrast):
    """Apply the network to float32 `values` (height, width, 1 or 3) at a contrast about 0.5."""
    grey = (1 - contrast) / 2
    batch = np.repeat(contrast * values + grey, 3 // values.shape[2], axis=2)[np.newaxis]
    denoised = model.predict_on_batch(batch)[0]
    if not np.isfinite(denoised).all():
        raise ValueError("The network returns values that are no numbers: its training went wrong. "
                         "Train it afresh, with a smaller LEARNING_RATE.")
    if denoised.shape != batch[0].shape:
        raise ValueError(f"The network makes {denoised.shape} of an image {batch[0].shape}; a "
                         "denoiser keeps height, width and the three colours.")
    if values.shape[2] == 1:
        denoised = denoised.mean(axis=2, keepdims=True)
    return (denoised - grey) / contrast


def _windows(model, size):
    """Return how to go through an image of `size` (height, width) piece by piece.

    Each piece is (window, part, place): show the network `window` of the image, keep `part` of what
    comes out, and put it to `place` in the result. All windows are equally large.
    """
    try:
        halo = 0 if max(size) <= WINDOW else reach(model)  # what fits in one window needs no halo
    except ValueError as error:
        print(f"{error}\nSo the image goes through the network in one piece.")
        spans = [[(0, length, 0, length)] for length in size]
    else:
        spans = [_spans(length, halo) for length in size]
    return [(np.s_[top:bottom, left:right],
             np.s_[up - top:down - top, first - left:last - left], np.s_[up:down, first:last])
            for top, bottom, up, down in spans[0] for left, right, first, last in spans[1]]


def _spans(length, halo):
    """Cut `length` pixels. Returns for each window its start and stop and those of what is valid.

    Within `halo` pixels of a cut, the network misses what lies beyond. At the image's own edges
    there is nothing to miss.
    """
    most = max(WINDOW - 2 * halo, 2 * halo, 1)  # far reach: rather large windows than many
    number = max(1, -(-(length - 2 * halo) // most))
    step = -(-(length - 2 * halo) // number)
    window = min(length, step + 2 * halo)
    starts = [min(i * step, length - window) for i in range(number)]
    return [(start, start + window, start + halo if start else 0,
             start + window - halo if start + window < length else length) for start in starts]


def reach(model):
    """Return by how many pixels, at most, the network looks beyond a pixel to compute it.

    Each convolution with stride 1 and same padding adds dilation × (kernel size - 1) / 2; what
    works on single pixels adds nothing. Five 3×3 convolutions reach 5 pixels.

    Raises ValueError for a network in which another layer stands.
    """
    try:
        entries = model.get_config()["layers"]
    except (NotImplementedError, TypeError, KeyError):
        raise ValueError(f"How far {model.name} reaches is not known: it cannot list its layers."
                         ) from None
    return sum(_layer_reach(entry) * max(1, len(entry.get("inbound_nodes", ())))
               for entry in entries)


def _layer_reach(entry):
    kind, config = entry["class_name"], entry["config"]
    ours = str(entry["module"]).split(".")[0] == "keras"
    if not isinstance(config.get("activation", "linear"), str):
        ours = False  # a function of one's own: it may look at other pixels
    if ours and kind in POINTWISE:
        return 0
    if ours and kind in ALONG_AN_AXIS and config["axis"] in (-1, 3):
        return 0
    if (ours and kind in CONVOLUTIONS and set(np.ravel(config["strides"])) == {1}
            and config["padding"] == "same" and config["data_format"] == "channels_last"):
        spread = np.subtract(config["kernel_size"], 1) * config["dilation_rate"]
        return int(-(-np.max(spread) // 2))
    raise ValueError(f"How far the network reaches is not known, because of {entry.get('name')} "
                     f"({kind}).")


class _Progress:
    """Show how many of `total` steps are done, every few seconds and only if it takes that long."""

    def __init__(self, total):
        self.total, self.done = total, 0
        self.start = self.shown = time.perf_counter()
        self.line = None

    def step(self):
        self.done += 1
        now = time.perf_counter()
        last = self.done == self.total
        if now - self.shown < STATUS_INTERVAL and not (self.line and last):
            return
        self.shown = now
        self.line = self.line or _StatusLine("")
        spent = now - self.start
        left = duration(spent * (self.total - self.done) / self.done)
        self.line.show(f"Denoised {self.done} of {self.total} parts, "
                       + (f"in {duration(spent)}" if last else f"{left} left"))


def denoise_file(model, source, target, scale=1.0):
    """Denoise the picture file `source` and write the result to `target`, a PNG file.

    For what `source` may be, see open_picture(); its ICC profile is kept. `scale` is denoise()'s.
    Returns the denoised pixels. Raises PictureError or PictureFileError, and leaves no file and no
    part of one behind, if the picture cannot be denoised or the result not be written.
    """
    with _naming(source, "read"):
        source = pathlib.Path(source).expanduser()
    with _naming(target, "written"):
        target = pathlib.Path(target).expanduser()
        _check_target(source, target)
    image, icc_profile = _read_picture(source)
    denoised = denoise(model, image, scale)
    save_picture(denoised, target, icc_profile)
    return denoised


def _check_target(source, target):
    if target.suffix.lower() != ".png":
        raise PictureError(f"The result {target} would be a PNG file: let its name end in .png.")
    if not target.parent.is_dir():
        raise PictureError(f"There is no folder {target.parent} in {pathlib.Path.cwd()} to write "
                           f"{target.name} to: create it.")
    if target.is_dir():
        raise PictureError(f"{target} is a folder: name a file.")
    if _same_file(source, target):
        raise PictureError(f"{target} is the noisy picture itself: give the result another name.")


def _same_file(source, target):
    try:
        return source.resolve() == target.resolve() or source.samefile(target)
    except OSError:  # missing, or out of reach: reading or writing it will tell
        return False


# ---- Figures: each returns after drawing, the notebook calls plt.show() --------------------------

NOISY_COLOUR = "#D55E00"  # all of Okabe and Ito's palette, told apart by the colour-blind
NETWORK_COLOURS = {"Model1": "#0072B2", "Model2": "#009E73", "Model3": "#CC79A7"}
OTHER_COLOUR = "#56B4E9"


def _colour(name):
    return NETWORK_COLOURS.get(name, OTHER_COLOUR)


def _new_figure(width, height, picture_format):
    """Start a pyplot figure, embedded as JPEG where it holds pictures, and as PNG elsewhere."""
    if IPython.get_ipython() is not None:
        options = {"pil_kwargs": {"quality": 90}} if picture_format == "jpeg" else {}
        set_matplotlib_formats(picture_format, **options)
    return plt.figure(figsize=(width, height), layout="constrained", facecolor="white", dpi=80)


def _show_image(axes, image, title):
    colours = np.clip(to_float(_colours(image)), 0, 1)
    axes.imshow(np.repeat(colours, 3 // colours.shape[2], axis=2), interpolation="nearest")
    axes.set_title(title, fontsize=11)
    axes.set_axis_off()


def plot_clean_and_noisy(clean, noisy, title):
    """Draw each `clean` image (number, height, width, 3) above its `noisy` one, in [0, 1]."""
    figure = _new_figure(11, 3.1, "jpeg")
    figure.suptitle(title)
    axes = figure.subplots(2, len(clean))
    for column, pair in enumerate(zip(clean, noisy)):
        for row, image in enumerate(pair):
            name = ("clean", "noisy")[row] if column == 0 else ""
            _show_image(axes[row, column], image, name)


def _draw_curves(figure, run):
    """Draw loss and PSNR over the epochs, the noisy baseline in each, into `figure`."""
    left, right = figure.subplots(1, 2)
    epochs = range(1, len(run["psnr"]) + 1)
    steps, losses = np.array(run["curve"]).T
    colour = _colour(run["model"])
    left.semilogy(steps, losses, color=colour, label="training batches")
    left.axhline(10 ** (-run["noisy_psnr"] / 10), color=NOISY_COLOUR, ls="--", label="noisy input")
    left.set(title="Loss on the training images", xlabel="epoch", ylabel="mean squared error")
    right.plot(steps, -10 * np.log10(losses), color=colour, alpha=0.4, label="training batches")
    right.plot(epochs, run["psnr"], "o-", color=colour, ms=4,
               label=f"{run['monitored_images']:,} test images")
    right.axhline(run["noisy_psnr"], color=NOISY_COLOUR, ls="--", label="noisy input")
    right.set(title="PSNR: higher is better", xlabel="epoch", ylabel="PSNR (dB)")
    for axes in (left, right):
        axes.set_xlim(0, np.ceil(steps[-1]))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.margins(y=0.08)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=9)


def plot_curves(run):
    """Draw the loss and the PSNR of a `run`, as train() returns it, over its epochs."""
    if not run["curve"]:
        print("No epoch has finished yet, so there are no curves to draw.")
        return
    figure = _new_figure(11, 3.6, "png")
    figure.suptitle(f"{run['model']} on {run['data']}: {count(len(run['psnr']), 'epoch')}")
    _draw_curves(figure, run)


def plot_psnr_distribution(noisy, denoised, name, title):
    """Draw histograms of the per-image PSNR of two Scores, before and after the network `name`."""
    figure = _new_figure(8, 3.2, "png")
    axes = figure.subplots()
    bins = np.histogram_bin_edges(np.append(noisy.image_psnr, denoised.image_psnr), 60)
    for scores, colour, label in ((noisy, NOISY_COLOUR, "noisy"), (denoised, _colour(name), name)):
        axes.hist(scores.image_psnr, bins, color=colour, alpha=0.7, label=label)
    axes.set(title=title, xlabel="PSNR of one image (dB)", ylabel="number of images")
    axes.legend()


def plot_best_median_worst(clean, noisy, denoised, scores, title):
    """Draw the images with the highest, median and lowest PSNR as clean | noisy | denoised.

    The arrays (number, height, width, 3) are float32 in [0, 1], `scores` is score()'s result for
    the denoised ones.
    """
    order = np.argsort(scores.image_psnr)
    chosen = {"best": order[-1], "median": order[len(order) // 2], "worst": order[0]}
    figure = _new_figure(7, 7.2, "jpeg")
    figure.suptitle(title)
    axes = figure.subplots(3, 3)
    for row, (name, i) in zip(axes, chosen.items()):
        _show_image(row[0], clean[i], f"{name}: clean")
        _show_image(row[1], noisy[i], f"noisy: {psnr(clean[i], noisy[i]):.1f} dB")
        _show_image(row[2], denoised[i], f"denoised: {scores.image_psnr[i]:.1f} dB")


def plot_picture(noisy, denoised, clean, title, zoom=(0.12, 0.39)):
    """Draw a picture before and after denoising, what was removed, and a zoomed crop of each.

    `noisy`, `denoised` and, unless it is None, `clean` have the same shape and type, one of those
    that denoise() takes; alpha is not drawn. The crop is a fifth of the picture's shorter side;
    `zoom` is where its top left corner lies, as fractions of height and width.
    """
    names = ["noisy", "denoised", "removed (grey: nothing), ×2"]
    if clean is not None:
        names = ["clean", *(f"{name}: {psnr(clean, picture):.2f} dB"
                            for name, picture in zip(names, (noisy, denoised))), names[2]]
    height, width = noisy.shape[:2]
    step = max(1, max(height, width) // 1000)  # the whole is drawn small: leave out what none sees
    size = max(1, min(height, width) // 5)
    top, left = int(zoom[0] * (height - size)), int(zoom[1] * (width - size))
    figure = _new_figure(3.2 * len(names), 7.1, "jpeg")
    figure.suptitle(title)
    wholes, crops = figure.subplots(2, len(names))
    for axes, cut in ((wholes, np.s_[::step, ::step]),
                      (crops, np.s_[top:top + size, left:left + size])):
        pictures = [noisy[cut], denoised[cut], _removed(noisy[cut], denoised[cut])]
        for ax, picture in zip(axes, pictures if clean is None else [clean[cut], *pictures]):
            _show_image(ax, picture, "")
    for ax, name in zip(wholes, names):
        ax.set_title(name, fontsize=11)
        ax.add_patch(plt.Rectangle((left / step, top / step), size / step, size / step, fill=False,
                                   color="yellow", lw=2))


def _removed(noisy, denoised):
    return 0.5 + 2 * (to_float(_colours(noisy)) - to_float(_colours(denoised)))


def plot_pictures(pictures, title, columns=None):
    """Draw `pictures` of one size, a dict of captions and arrays, in rows of `columns` (or one).

    Each array has a shape and a type that denoise() takes; float values are clipped to [0, 1].
    """
    columns = columns or len(pictures)
    rows = -(-len(pictures) // columns)
    height, width = next(iter(pictures.values())).shape[:2]
    figure = _new_figure(11, rows * (11 / columns * height / width + 0.3) + 0.4, "jpeg")
    figure.suptitle(title)
    places = figure.subplots(rows, columns, squeeze=False).flat
    for axes, (caption, picture) in zip(places, pictures.items()):
        _show_image(axes, picture, caption)
    for axes in places[len(pictures):]:
        axes.set_axis_off()


def plot_noise_levels(levels, before, after, noise_std, name, title):
    """Draw the PSNR (dB) `before` and `after` the network `name` over the `levels` of the noise.

    The level that it was trained on, `noise_std`, is marked, and so is where it does harm.
    """
    figure = _new_figure(8, 3.6, "png")
    axes = figure.subplots()
    axes.plot(levels, before, "s--", color=NOISY_COLOUR, label="noisy")
    axes.plot(levels, after, "o-", color=_colour(name), label=name)
    harm = np.less(after, before)
    if harm.any():
        axes.fill_between(levels, before, after, where=harm, interpolate=True,
                          color=NOISY_COLOUR, alpha=0.25, label="here it does harm")
    axes.axvline(noise_std, color="black", lw=1, ls=":", label="trained on")
    axes.set(title=title, xlabel="standard deviation of the noise", ylabel="PSNR (dB)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=9)


# ---- The three models side by side ---------------------------------------------------------------


def side_by_side(run, checkpoints):
    """Return the runs of the three models by their names, each as train() returns it.

    `run` is this notebook's. Another model's is the newest finished one among the `checkpoints`
    with the same settings and data, or else the one that its weights in weights/ come from, if it
    had the same noise; a model that has neither is left out, and so is `run` if it was stopped in
    its first epoch. Each run has one more entry, "origin": where it comes from.
    """
    runs = {}
    for name in sorted({*NETWORK_COLOURS, run["model"]}):
        if name == run["model"]:
            runs[name] = run | {"origin": "this notebook"}
        elif found := _finished_run(name, run, checkpoint_folder(checkpoints)):
            runs[name] = found | {"origin": "checkpoints"}
        elif (found := _reference_run(name)) and found["noise_std"] == run["noise_std"]:
            runs[name] = found | {"origin": "weights"}
    return {name: one for name, one in runs.items() if one["psnr"]}


def _finished_run(name, like, folder):
    paths = [path for path in folder.glob(f"{name}-*.npz") if ".previous" not in path.name]
    like = {**like, "model": name}
    same = ("model", "data", "train_images", "epochs", "batch_size", "noise_std", "seed")
    for path in sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            with np.load(path, allow_pickle=False) as arrays:
                run = json.loads(str(arrays["run"]))
        except Exception:  # a damaged zip file raises errors of many kinds; train() reports it
            continue
        if len(run["loss"]) == run["epochs"] and all(run[key] == like[key] for key in same):
            return run
    return None


def _reference_run(name):
    try:
        return read_history(_shipped(f"{name}.csv"))
    except ValueError:  # WeightsError, too
        return None


def read_seeds():
    """Read weights/seeds.csv: the test PSNR of runs that differ in nothing but their seeds.

    Returns the line that says what they are, and a dict of model names and lists of the PSNR of
    the mean MSE, in dB. Without the file (in Colab), the line says so and the dict is empty.
    """
    try:
        title, _, *rows = _shipped("seeds.csv").read_text(encoding="utf-8").splitlines()
    except WeightsError:
        return f"There is no seeds.csv in {REFERENCE}/ or beside this notebook.", {}
    seeds = {}
    for row in rows:
        name, _, reached = row.split(",")
        seeds.setdefault(name, []).append(float(reached))
    return title.removeprefix("# "), seeds


def plot_side_by_side(runs, seeds, title):
    """Draw the PSNR of `runs` (see side_by_side()) over the epochs, and the `seeds` as dots.

    `title` and `seeds` are what read_seeds() returns. Without `seeds`, only the curves are drawn;
    without `runs`, nothing is.
    """
    if not runs:
        return
    figure = _new_figure(11, 3.6, "png")
    left, right = figure.subplots(1, 2, width_ratios=(2, 1))
    for name, run in runs.items():
        epochs = range(1, len(run["psnr"]) + 1)
        left.plot(epochs, run["psnr"], "o-", color=_colour(name), ms=4,
                  label=f"{name}, {run['data']}")
    left.set(title="PSNR while they trained", xlabel="epoch", ylabel="PSNR (dB), watched images")
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.legend(fontsize=9)
    for place, (name, reached) in enumerate(seeds.items()):
        beside = np.linspace(-0.2, 0.2, len(reached))  # or equal results would hide each other
        right.plot(place + beside, reached, "o", color=_colour(name))
    right.set(title="Seed by seed: mind the scale", ylabel="PSNR (dB)", xticks=range(len(seeds)),
              xticklabels=list(seeds))
    right.set_xlabel(textwrap.fill(title, 50), fontsize=8)
    right.margins(x=0.1, y=0.1)
    right.set_visible(bool(seeds))
    for axes in (left, right):
        axes.grid(alpha=0.3)
