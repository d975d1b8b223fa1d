"""Training: the order of the images, checkpoints, Stop, and what the display shows."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jupyter_client
import keras
import numpy as np
import pytest

import brief_training
import common
import notebooks

same_sums = pytest.mark.skipif(common._gpus(), reason="a GPU does not repeat its sums bit by bit")


@pytest.fixture(scope="module")
def data(photographs):
    return common.Data("photographs", photographs.train[:80], photographs.test[:8])


def small_network(optimizer=keras.optimizers.Adam, loss="mse", rate=1e-3, noise_std=0.1,
                  activation="linear", name=None, **convolution):
    """A network that is quick to compile, for tests of what is around the training."""
    keras.utils.set_random_seed(0)
    image = keras.Input((None, None, 3), name="clean")
    noisy = keras.layers.GaussianNoise(noise_std)(image)
    x = keras.layers.Conv2D(3, 3, padding="same", **convolution)(noisy)
    x = keras.layers.Activation(activation, name=name)(x)
    model = keras.Model(image, keras.layers.Add()([noisy, x]), name="Small")
    model.compile(optimizer=optimizer(rate), loss=loss)
    return model


def train(model, data, epochs=2, training="resume", folder="checkpoints", batch_size=32, seed=0):
    """Train `model` by the notebooks' own cell. Returns the Run."""
    clean = common.to_float(data.test)
    return notebooks.train({
        "NAME": "Model1", "keras": keras, "common": common, "model": model, "data": data,
        "EPOCHS": epochs, "NOISE_STD": 0.1, "TRAINING": training, "CHECKPOINTS": folder,
        "noisy": common.noisy_picture(), "batches": common.Batches(data.train, batch_size, seed),
        "validation": (common.add_noise(clean, 0.1, seed), clean)})


def built(name, data, folder, epochs=2):
    """Return the variables of the notebook `name`, about to train its own network."""
    return notebooks.built(name, data, epochs, TRAINING="resume", CHECKPOINTS=folder)


def weights(model):
    return [weight.copy() for weight in model.get_weights()]


def assert_same(these, those):
    for this, that in zip(these, those, strict=True):
        np.testing.assert_array_equal(this, that)


def timeless(run):
    return run._replace(seconds=len(run.seconds), date="")


@contextlib.contextmanager
def stop_in(epoch, step):
    """Raise KeyboardInterrupt, as Stop does, at this epoch and step (from 0)."""
    original = common.LiveDisplay.on_train_batch_end

    def stopping(self, batch, logs=None):
        original(self, batch, logs)
        if (self.checkpoints.finished, batch) == (epoch, step):
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(common.LiveDisplay, "on_train_batch_end", stopping)
        patch.setattr(common.time, "sleep", lambda seconds: None)  # it waits for other clicks
        yield


def epochs_kept(folder="checkpoints"):
    """Return the epochs of a run's checkpoints, and whatever else lies in their folder."""
    return sorted(re.sub(r"Small-\w{16}\.000(\d\d)\.npz", r"\1", path.name)
                  for path in Path(folder).iterdir())


def test_an_epoch_shows_every_image_once_in_an_order_of_its_own():
    images = np.arange(80, dtype=np.uint8).reshape(80, 1, 1, 1)

    def order(seed, epoch):
        batches = common.Batches(images, 32, seed)
        batches.shuffle(epoch)
        assert [len(batches[i][0]) for i in range(len(batches))] == [32, 32, 16]
        for inputs, targets in (batches[i] for i in range(len(batches))):
            np.testing.assert_array_equal(inputs, targets)
        seen = np.concatenate([batches[i][0] for i in range(len(batches))])
        assert seen.dtype == np.float32
        return np.round(seen.ravel() * 255).astype(int).tolist()

    assert sorted(order(0, 0)) == list(range(80))
    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(*which)) for which in [(0, 0), (0, 1), (1, 0), (1, 1)]}) == 4


def test_one_long_fit_takes_each_epochs_own_order(monkeypatch, data):
    original, taken = common.Batches.__getitem__, []

    def recording(self, index):
        taken.append((tuple(self.order), index))
        return original(self, index)

    monkeypatch.setattr(common.Batches, "__getitem__", recording)
    train(small_network(), data, epochs=4)
    batches, expected = common.Batches(data.train, 32, 0), []
    for epoch in range(4):
        batches.shuffle(epoch)
        expected += [(tuple(batches.order), index) for index in range(3)]
    assert sorted(taken[-9:]) == sorted(expected[-9:])
    assert set(taken) == set(expected)


def test_the_noise_hangs_on_seed_and_epoch_and_layer(data):
    image = keras.Input((None, None, 3))
    noises = [keras.layers.GaussianNoise(0.1) for _ in range(2)]
    model = keras.Model(image, noises[1](noises[0](image)), name="Small")
    model.compile(loss="mse")
    clean = common.to_float(data.test)
    checkpoints = common.Checkpoints(model, common.Batches(data.train, 32, 0), (clean / 2, clean),
                                     data="few", epochs=1, noise_std=0.1)

    def drawn(seed, epoch):
        checkpoints.batches.seed = seed
        checkpoints.on_epoch_begin(epoch)
        return [np.array(noise(clean, training=True)).tobytes() for noise in noises]

    assert drawn(0, 0) == drawn(0, 0)
    assert len({*drawn(0, 0), *drawn(0, 1), *drawn(1, 0)}) == 6


@same_sums
def test_stopped_run_goes_on_elsewhere_and_ends_like_one_that_was_not(data, capsys, monkeypatch):
    whole, stopped, again = (built("Model3", data, folder) for folder in ("a", "b", "b"))
    expected = notebooks.train(whole)
    assert len(expected.loss) == len(expected.psnr) == 2
    with stop_in(epoch=1, step=1):
        run = notebooks.train(stopped)
        after_one = weights(stopped["model"])
        assert run == notebooks.train(stopped)
    assert run.loss == expected.loss[:1]
    assert_same(weights(stopped["model"]), after_one)
    assert capsys.readouterr().out.count("Stopped: back at the end of epoch 1 of 2") == 2
    monkeypatch.setattr(common, "describe_backend", lambda: "another device")
    run = notebooks.train(again)
    assert run.backend == f"{expected.backend}, then another device"
    assert timeless(run)._replace(backend=expected.backend) == timeless(expected)
    assert_same(weights(again["model"]), weights(whole["model"]))


def test_stop_in_the_first_epoch_is_an_error_and_the_cell_can_run_again(data):
    model = small_network()
    before = weights(model)
    with stop_in(epoch=0, step=1), pytest.raises(common.Halt, match="no trained network"):
        train(model, data)
    assert_same(weights(model), before)
    assert len(train(model, data).loss) == 2


IN_A_KERNEL = """
import sys
sys.path[:0] = {path}
import test_training
data = test_training.common._photographs()
test_training.train(test_training.small_network(), data, batch_size=1)
"""


def test_several_stops_in_a_kernel_end_the_queue_by_one_line():
    manager, client = jupyter_client.manager.start_new_kernel()
    try:
        path = [str(notebooks.ROOT), str(notebooks.ROOT / "tests")]
        training = client.execute(IN_A_KERNEL.format(path=path))
        behind = client.execute("1 + 1")
        while "Epoch 1/2, step" not in str(client.get_iopub_msg(timeout=120)["content"]):
            pass
        for _ in range(4):
            manager.interrupt_kernel()
            time.sleep(0.2)
        replies = {}
        while not {training, behind} <= replies.keys():
            reply = client.get_shell_msg(timeout=60)
            replies[reply["parent_header"]["msg_id"]] = reply["content"]
    finally:
        manager.shutdown_kernel(now=True)
    assert replies[behind]["status"] == "aborted"
    [line] = replies[training]["traceback"]
    assert line.startswith("Halt: Stopped in the first epoch") and "\n" not in line


def test_finished_run_is_not_trained_again(data, capsys):
    first, second = small_network(), small_network()
    run = train(first, data)
    steps = int(first.optimizer.iterations)
    assert train(second, data) == run
    assert_same(weights(second), weights(first))
    assert int(second.optimizer.iterations) == steps == 6
    assert capsys.readouterr().out.rstrip().endswith(str(run))


class Own(keras.layers.Layer):
    def __init__(self, amount, **options):
        super().__init__(**options)
        self.amount = amount

    def call(self, images):
        return images * self.amount


def own_layer(amount):
    model = keras.Sequential([keras.Input((None, None, 3)), Own(amount)], name="Small")
    model.compile(loss="mse")
    return model


def test_everything_that_shapes_a_run_names_it(data):
    def key(model, data=data, epochs=2, batch_size=32, noise_std=0.1, seed=0):
        run = common.Run("Small", "few", 80, 8, epochs, batch_size, noise_std, seed, *8 * [None])
        batches = common.Batches(data.train, batch_size, seed)
        return common._key(model, run, batches, common.to_float(data.test))

    source = notebooks.network("Model2")
    shallower = keras.Model(source.input, source.get_layer("conv4").output, name="Model2")
    shallower.compile(optimizer=common.Muon(1e-3), loss="mse")
    keys = [key(small_network()), key(notebooks.network("Model3")), key(source), key(shallower),
            key(small_network(), data._replace(train=data.train[::-1])),
            key(small_network(), data._replace(test=data.test[::-1])),
            key(small_network(), epochs=3), key(small_network(), batch_size=16),
            key(small_network(), seed=1), key(small_network(noise_std=0.2)),
            key(small_network(rate=2e-3)), key(small_network(common.Muon)),
            key(small_network(noise_std=0.0)), key(small_network(noise_std=0.0), noise_std=0.2),
            key(small_network(activation="relu", name="relu")),
            key(small_network(activation="tanh", name="tanh")),
            key(small_network(dilation_rate=2)), key(own_layer(1)), key(own_layer(2))]
    assert len(set(keys)) == len(keys)
    if keras.__version__.startswith("3.15."):  # another key would train all runs anew
        assert keys[0] == "ffb4362bfac099e9"
    # Keras counts its own names up: add, add_1, … in the second network of one process.
    keras.backend.clear_session()
    assert {key(small_network()) for _ in range(3)} == {keys[0]}


def wide_network():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((None, None, 3)), keras.layers.GaussianNoise(0.1)]
                             + [keras.layers.Conv2D(each, 1) for each in (16, 16, 3)], name="Wide")
    model.compile(optimizer=common.Muon(1e-3), loss="mse")
    return model


def test_a_checkpoint_of_an_earlier_day_is_read():
    """frozen.npz is what wide_network() left after the first of two epochs of 64 black images."""
    data = notebooks.few_images()
    with stop_in(epoch=0, step=0), pytest.raises(common.Halt):
        train(wide_network(), data)
    [path] = Path("checkpoints").iterdir()
    shutil.copy(notebooks.ROOT / "tests" / "frozen.npz", str(path).replace(".00000.", ".00001."))
    model = wide_network()
    with stop_in(epoch=1, step=0):
        run = train(model, data)
    frozen = np.load(notebooks.ROOT / "tests" / "frozen.npz", allow_pickle=False)
    kept = common.Run(**json.loads(str(frozen["run"])))
    assert run._replace(backend="") == kept._replace(backend="")
    values = weights(model)
    assert_same(values, [frozen[f"variable{i:03d}"] for i in range(len(values))])
    for variable in model.optimizer.variables:  # each in its own place
        lowest = float(keras.ops.min(variable))
        assert lowest >= 0 or not variable.path.endswith("velocity")
        assert lowest < 0 or not variable.path.endswith("kernel_momentum")


def test_trained_network_is_not_taken_for_a_fresh_one(data):
    model = small_network()
    train(model, data)
    with pytest.raises(common.Halt, match="run the cell that builds it"):
        train(model, data, epochs=3)
    shutil.rmtree("checkpoints")
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss="mse")
    with pytest.raises(common.Halt, match="run the cell that builds it"):
        train(model, data)


@pytest.mark.parametrize("owner, function, number, kept", [
    (Path, "mkdir", 0, None), (np, "savez", 2, ["00", "01"]), (os, "replace", 0, []),
    (os, "replace", 1, ["00"]), (os, "replace", 2, ["00", "01"]),
    (Path, "unlink", 0, ["00", "01", "02"])])
def test_fault_of_writing_is_a_clear_error_and_loses_one_epoch_at_most(
        monkeypatch, data, owner, function, number, kept):
    original, done = getattr(owner, function), []

    def failing(*args, **options):
        if ".part" not in str(args[0]) or function in ("savez", "replace"):
            done.append(args)
        if len(done) > number:
            raise OSError(28, "No space left on device")
        return original(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(owner, function, failing)
        with pytest.raises(common.Halt, match=r"No space left.*move the files Small-\w+\.\* "):
            train(small_network(), data)
    if kept is not None:  # else the training did not begin
        assert epochs_kept() == kept
        Path("checkpoints").rename("elsewhere")
    assert len(train(small_network(), data, folder="elsewhere").loss) == 2
    assert epochs_kept("elsewhere")[-2:] == ["01", "02"]


@same_sums
@pytest.mark.parametrize("damage, files", [
    (lambda content: content[:-1000], 1), (lambda content: b"", 1), (lambda content: b"", 2),
    (lambda content: content.replace(content[900:1000], 100 * b"?"), 1)])
def test_damaged_checkpoints_are_set_aside_for_the_one_before(data, capsys, damage, files):
    whole, again = small_network(), small_network()
    expected = train(whole, data)
    for path in sorted(Path("checkpoints").iterdir(), reverse=True)[:files]:
        path.write_bytes(damage(path.read_bytes()))
    run = train(again, data)
    reports = re.findall(r"damaged \(.*\) and was set aside as checkpoints.*damaged\.",
                         capsys.readouterr().out)
    assert len(reports) == len(list(Path("checkpoints").glob("*.damaged"))) == files
    assert (run.seconds[0] == expected.seconds[0]) is (files == 1)
    assert timeless(run) == timeless(expected)
    assert_same(weights(again), weights(whole))


def test_checkpoint_that_cannot_be_read_is_not_taken_for_damaged(monkeypatch, data):
    train(small_network(), data)

    def locked(path):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", locked)
        with pytest.raises(PermissionError):
            train(small_network(), data)
    assert epochs_kept() == ["01", "02"]


@same_sums
def test_restart_begins_anew_and_replaces_the_old_run_after_an_epoch(data):
    finished = train(small_network(), data)
    with stop_in(epoch=0, step=1), pytest.raises(common.Halt):
        train(small_network(), data, training="restart")
    assert train(small_network(), data) == finished
    with stop_in(epoch=1, step=1):
        train(small_network(), data, training="restart")
    assert epochs_kept() == ["00", "01"]
    again = train(small_network(), data, training="restart")
    assert again.seconds[0] != finished.seconds[0] and again.loss == finished.loss


@same_sums
def test_several_steps_a_call_as_on_a_gpu_change_nothing(monkeypatch, data):
    one = built("Model3", data, "one")
    expected = notebooks.train(one)
    monkeypatch.setattr(common, "STEPS_PER_CALL", 2)
    several = built("Model3", data, "two")
    run = notebooks.train(several)
    np.testing.assert_allclose(run.loss, expected.loss, rtol=1e-5)
    np.testing.assert_allclose(run.psnr, expected.psnr, rtol=1e-5)
    assert [epoch for epoch, _ in run.curve] == pytest.approx([2 / 3, 1, 5 / 3, 2])
    images = several["noisy_test"]
    predicted = [each["model"].predict(images, batch_size=3, verbose=0) for each in (one, several)]
    assert predicted[1].shape == images.shape
    np.testing.assert_allclose(*predicted, atol=1e-4)
    pictures = [common.denoise(each["model"], images[0]) for each in (one, several)]
    np.testing.assert_allclose(*pictures, atol=1e-4)


def test_unknown_settings_are_refused(data):
    with pytest.raises(common.Halt, match="TRAINING is 'anew'; it must be \"resume\""):
        train(small_network(), data, training="anew")
    for other in ({"loss": "mae"}, {"kernel_regularizer": "l2"},
                  {"loss": keras.losses.MeanSquaredError(reduction="sum")}):
        with pytest.raises(common.Halt, match='compile with loss="mse"'):
            train(small_network(**other), data)


def brief_training_in_a_process(*moment):
    """Run brief_training.py, which kills itself at `moment`. Returns what it printed."""
    command = [sys.executable, notebooks.ROOT / "tests" / "brief_training.py", "result.npz", "5"]
    process = subprocess.run([*command, *map(str, moment)], capture_output=True, text=True,
                             env={**os.environ, "PYTHONPATH": str(notebooks.ROOT)})
    assert process.returncode == (-signal.SIGKILL if moment else 0), process.stderr
    return process.stdout


@same_sums
def test_killed_run_goes_on_and_ends_like_one_that_was_not():
    for moment, finished in [((0, 1), 0), ((1, 2), 0), ((3, 0), 1), ((), 3)]:
        assert f"begins after {finished} epochs" in brief_training_in_a_process(*moment)
    run, values = brief_training.read("result.npz")
    expected_run, expected = brief_training.train(5, "elsewhere")
    assert len(run.loss) == len(run.seconds) == 5
    assert timeless(run) == timeless(expected_run)
    assert_same(values, expected)


def test_run_says_what_it_was(data, capsys):
    variables = built("Model2", data, "checkpoints", epochs=1)
    run = notebooks.train(variables)
    assert common.Run(**json.loads(json.dumps(run._asdict()))) == run
    epoch = f"Epoch 1/1, step 3/3   loss {run.loss[0]:.6f}   PSNR {run.psnr[0]:.2f} dB\n"
    assert epoch in capsys.readouterr().out
    assert run[:8] == ("Model2", "photographs", 80, 8, 1, 32, 0.1, 0)
    clean, noisy = variables["clean_test"], variables["noisy_test"]
    assert run.noisy_psnr == common.psnr(clean, noisy)
    denoised = variables["model"].predict(noisy, verbose=0)
    assert run.psnr == [pytest.approx(common.psnr(clean, denoised), abs=2e-4)]
    assert "Trained for 1 epoch on photographs (80 images)" in str(run)
    assert f"PSNR {run.psnr[0]:.2f} dB on 8 validation images" in str(run)


def test_a_network_that_learned_nothing_denoises_no_picture(data):
    run = train(small_network(), data)
    common.require_trained(run._replace(psnr=[run.noisy_psnr + 0.1]))
    for reached in (run.noisy_psnr, float("nan")):
        with pytest.raises(common.Halt, match="has not learned to denoise"):
            common.require_trained(run._replace(psnr=[30.0, reached]))


def test_the_curve_shows_the_loss_of_the_batches(data):
    model = small_network(rate=0.0, noise_std=0.0)
    run = train(model, data)
    batches, expected = common.Batches(data.train, 32, 0), []
    for epoch in range(2):
        batches.shuffle(epoch)
        for clean, _ in (batches[i] for i in range(3)):
            expected.append(np.mean((model.predict(clean, verbose=0) - clean) ** 2))
    epochs, losses = np.array(run.curve).T
    np.testing.assert_allclose(epochs, [1 / 3, 2 / 3, 1, 4 / 3, 5 / 3, 2])
    np.testing.assert_allclose(losses, expected, rtol=1e-4)


def test_diverged_training_ends_in_one_clear_line(monkeypatch, data):
    in_a_notebook(monkeypatch)
    with pytest.raises(common.Halt, match="no numbers: its training went wrong"):
        train(small_network(rate=1e30), data)


class Handle:
    """Stands in for IPython's handle of a display that can be updated."""

    def __init__(self):
        self.updates = []

    def update(self, content, raw=False):
        self.updates.append(content["text/plain"] if raw else content)


def in_a_notebook(monkeypatch):
    """Let displays be shown as in a notebook. Returns the list of their handles to be."""
    handles = []
    monkeypatch.setattr(common.IPython, "get_ipython", lambda: True)
    monkeypatch.setattr(common, "display", lambda *a, **k: handles.append(Handle()) or handles[-1])
    return handles


def set_nothing(self, value):
    pass


@same_sums
def test_live_display_shows_the_run_and_changes_nothing(monkeypatch, data):
    plain, shown = (built("Model3", data, folder) for folder in ("a", "b"))
    expected = notebooks.train(plain)
    crops, original = [], common.denoise

    def denoise(model, image):
        crops.append(image)
        return original(model, image)

    handles = in_a_notebook(monkeypatch)
    monkeypatch.setattr(common, "denoise", denoise)
    monkeypatch.setattr(common.LiveDisplay, "next_figure", property(lambda self: 0, set_nothing),
                        raising=False)
    run = notebooks.train(shown)
    status, figure = handles
    assert status.updates[0] == "0 of 2 epochs done …"
    assert status.updates[1].startswith("Epoch 1/2, step 1/3   loss 0.0")
    assert status.updates[-1] == str(run)
    assert len(figure.updates) == len(crops) == 8  # at the beginning, each step, and the end
    assert all(each.data.startswith(b"\x89PNG") for each in figure.updates)
    for crop in crops:  # 102 pixels, a fifth of the side, with her eyes in it
        np.testing.assert_array_equal(crop, common.noisy_picture()[49:151, 159:261])
    assert timeless(run) == timeless(expected)
    assert_same(weights(shown["model"]), weights(plain["model"]))
    again = built("Model3", data, "b")
    notebooks.train(again)
    assert handles[2].updates[-1] == str(run) and handles[3].updates[-1].data


@pytest.mark.parametrize("seconds, text", [(0.4, "0 s"), (89, "89 s"), (90, "2 min"),
                                           (3580, "1 h 00 min"), (7500, "2 h 05 min")])
def test_duration(seconds, text):
    assert common.duration(seconds) == text
