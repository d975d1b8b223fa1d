"""What Model1.ipynb, Model2.ipynb and Model3.ipynb share, in the order in which they use it.

Images are NumPy arrays in the order (number, height, width, 3). Files and data sets hold them as
uint8 from 0 to 255; networks and metrics take float32 from 0 to 1.
"""

import contextlib
import datetime
import hashlib
import importlib
import io
import json
import os
import pathlib
import socket
import sys
import time
import zipfile
import zlib
from typing import NamedTuple

import IPython
import matplotlib.pyplot as plt
import numpy as np
import skimage.data
import skimage.metrics
from IPython.display import Image as PngImage
from IPython.display import display
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib_inline.backend_inline import set_matplotlib_formats
from PIL import Image, ImageOps

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

BUNDLE = "denoising coursework 2"  # each notebook checks this: other projects have a common.py too

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
    """Return uint8 `images` of any shape as float32 in [0, 1]."""
    return images.astype(np.float32) / np.float32(255)


def to_uint8(images):
    """Return float `images` of any shape as uint8: clipped to [0, 1], times 255, rounded."""
    return np.round(np.clip(images, 0, 1) * 255).astype(np.uint8)


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
        live.show_status(_stopped_message(run, training))
        return run
    live.show_status(describe_run(run))
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
                               f"here it is {value}.")
    model.has_been_trained = True
    try:
        # A network without an optimizer, or Keras warns that the file has none.
        keras.Model(model.input, model.output).load_weights(weights)
    except Exception as error:  # h5py and Keras raise errors of many kinds
        raise WeightsError(f"{weights} does not fit this network, or is damaged: {error}"
                           ) from error
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


class _LiveDisplay(keras.callbacks.Callback):
    """A line of text and the curves, updated in place while the network trains."""

    def __init__(self, run):
        super().__init__()
        self.run = run
        self.in_notebook = IPython.get_ipython() is not None
        if self.in_notebook:
            self.status = display({"text/plain": "Starting …"}, raw=True, display_id=True)
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
            self.show_status(self._progress(step, logs["loss"], now))
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

    def show_status(self, text):
        if self.in_notebook:
            self.status.update({"text/plain": text}, raw=True)
        else:
            print(text)

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


# ---- Pictures ------------------------------------------------------------------------------------

NOISY_PICTURE = "noisy.png"


class PictureError(ValueError):
    """A picture cannot be denoised as it is."""


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
    """Read the picture file `name`. Returns uint8, (height, width, 3).

    A missing noisy.png is made anew. A photograph is turned upright as its EXIF data say. Raises
    PictureError, which says what to do, for a file that is missing, no picture, or not 8-bit RGB.
    """
    path = pathlib.Path(name)
    if str(name) == NOISY_PICTURE and not path.exists():
        save_picture(noisy_picture(), path)
    if not path.is_file():
        raise PictureError(f"There is no picture {name} in {pathlib.Path.cwd()}: "
                           "put it there, or change PICTURE in the settings cell.")
    try:
        with Image.open(path) as picture:
            deep = ";16" in str(picture.tile)  # Pillow opens 16-bit RGB as 8 bits without a word
            if deep or picture.mode != "RGB":
                raise PictureError(_not_rgb(name, picture.mode, deep))
            return np.array(ImageOps.exif_transpose(picture))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise PictureError(f"{name} cannot be read as a picture: {error}") from error


def _not_rgb(name, mode, deep):
    if deep or mode[0] in "IF":  # Pillow's own conversion would cut these off at 255
        return (f"{name} has more than 8 bits a channel (mode {mode}), and these networks take "
                "8-bit RGB. Save it as 8-bit RGB with an image editor.")
    return (f"{name} has the colour mode {mode}, and these networks take RGB. Convert it: "
            f'from PIL import Image; Image.open("{name}").convert("RGB").save("rgb.png"); '
            'then set PICTURE = "rgb.png".')


def denoise(model, picture):
    """Denoise a `picture` of any size, uint8, (height, width, 3). Returns the same shape and type.

    The network's output is clipped to [0, 1] and rounded to 8 bits.
    """
    batch = to_float(picture)[np.newaxis]
    return to_uint8(keras.ops.convert_to_numpy(model(batch, training=False))[0])


def save_picture(picture, path):
    """Write `picture`, uint8, (height, width, 3), as a PNG file, whole or not at all."""
    with replacing(pathlib.Path(path)) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG")


# ---- Figures: each returns after drawing, the notebook calls plt.show() --------------------------

NOISY_COLOUR = "#D55E00"  # of Okabe and Ito's palette, told apart by the colour-blind
NETWORK_COLOUR = "#0072B2"


def _new_figure(width, height, picture_format):
    """Start a pyplot figure, embedded as JPEG where it holds pictures, and as PNG elsewhere."""
    if IPython.get_ipython() is not None:
        options = {"pil_kwargs": {"quality": 90}} if picture_format == "jpeg" else {}
        set_matplotlib_formats(picture_format, **options)
    return plt.figure(figsize=(width, height), layout="constrained", facecolor="white", dpi=80)


def _show_image(axes, image, title):
    image = image if image.dtype == np.uint8 else np.clip(image, 0, 1)
    axes.imshow(image, interpolation="nearest")
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
    left.semilogy(steps, losses, color=NETWORK_COLOUR, label="training batches")
    left.axhline(10 ** (-run["noisy_psnr"] / 10), color=NOISY_COLOUR, ls="--", label="noisy input")
    left.set(title="Loss on the training images", xlabel="epoch", ylabel="mean squared error")
    right.plot(steps, -10 * np.log10(losses), color=NETWORK_COLOUR, alpha=0.4,
               label="training batches")
    right.plot(epochs, run["psnr"], "o-", color=NETWORK_COLOUR, ms=4,
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


def plot_psnr_distribution(noisy, denoised, title):
    """Draw histograms of the per-image PSNR of two Scores, before and after the network."""
    figure = _new_figure(8, 3.2, "png")
    axes = figure.subplots()
    bins = np.histogram_bin_edges(np.append(noisy.image_psnr, denoised.image_psnr), 60)
    for scores, colour, name in ((noisy, NOISY_COLOUR, "noisy"),
                                 (denoised, NETWORK_COLOUR, "denoised")):
        axes.hist(scores.image_psnr, bins, color=colour, alpha=0.7, label=name)
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

    `noisy`, `denoised` and, unless it is None, `clean` are uint8, (height, width, 3). The crop is
    a fifth of the picture's shorter side; `zoom` is where its top left corner lies, as fractions
    of height and width.
    """
    def with_psnr(name, picture):
        return name if clean is None else f"{name}: {psnr(clean, picture):.2f} dB"

    removed = 0.5 + 2 * (to_float(noisy) - to_float(denoised))
    pictures = {with_psnr("noisy", noisy): noisy, with_psnr("denoised", denoised): denoised,
                "removed (grey: nothing), ×2": removed}
    if clean is not None:
        pictures = {"clean": clean, **pictures}
    height, width = noisy.shape[:2]
    size = max(1, min(height, width) // 5)
    top, left = int(zoom[0] * (height - size)), int(zoom[1] * (width - size))
    figure = _new_figure(3.2 * len(pictures), 7.1, "jpeg")
    figure.suptitle(title)
    axes = figure.subplots(2, len(pictures))
    for (whole, crop), (title, picture) in zip(axes.T, pictures.items()):
        _show_image(whole, picture, title)
        whole.add_patch(plt.Rectangle((left, top), size, size, fill=False, color="yellow", lw=2))
        _show_image(crop, picture[top:top + size, left:left + size], "")
