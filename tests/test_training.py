"""Training: the order of the images, checkpoints, Stop, and what the display shows."""

import contextlib
import json
import os
import runpy
import shutil
import signal
from pathlib import Path

import keras
import numpy as np
import pytest

import common
import notebooks
from conftest import network_of

DRAW = common.LiveDisplay._draw
same_sums = pytest.mark.skipif(bool(common.GPUS), reason="a GPU does not repeat its sums")


@pytest.fixture(scope="module")
def data(photographs):
    return common.Data("photographs", photographs.train[:80], photographs.test[:8])


def small_network(optimizer=keras.optimizers.Adam, loss="mse", rate=1e-3, noise_std=0.1,
                  activation="linear", **convolution):
    """A network that is quick to compile, for tests of what is around the training."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    image = keras.Input((None, None, 3), name="clean")
    noisy = keras.layers.GaussianNoise(noise_std)(image)
    x = keras.layers.Conv2D(3, 3, padding="same", **convolution)(noisy)
    x = keras.layers.Activation(activation)(x)
    model = keras.Model(image, keras.layers.Add()([noisy, x]), name="Small")
    model.compile(optimizer=optimizer(rate), loss=loss)
    return model


def train(model, data, epochs=2, training="resume", folder="checkpoints", batch_size=32, seed=0,
          **changed):
    """Train `model` by the notebooks' own cell. Returns the Run."""
    clean = common.to_float(data.test)
    return notebooks.train({
        "NAME": "Model1", "keras": keras, "common": common, "model": model, "data": data,
        "EPOCHS": epochs, "NOISE_STD": 0.1, "TRAINING": training, "CHECKPOINTS": folder,
        "noisy": common.noisy_picture(), "batches": common.Batches(data.train, batch_size, seed),
        "validation": (common.add_noise(clean, 0.1, seed), clean), **changed})


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
def stop_in(epoch, step, error=KeyboardInterrupt):
    """Raise KeyboardInterrupt, as Stop does, or another error at this epoch and step (from 0)."""
    original = common.LiveDisplay.on_train_batch_end

    def stopping(self, batch, logs=None):
        original(self, batch, logs)
        if (self.epoch, self.checkpoints.step - 1) == (epoch, step):
            raise error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(common.LiveDisplay, "on_train_batch_end", stopping)
        yield


def kept(folder="checkpoints"):
    """Return how many epochs the one file in `folder` holds."""
    [path] = Path(folder).iterdir()
    with np.load(path) as file:
        return len(json.loads(str(file["run"]))["loss"])


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


def test_one_long_fit_takes_each_epochs_own_order_and_the_curve_shows_its_losses(data):
    model = network_of(keras.layers.Conv2D(3, 3, padding="same"))
    # A network that never changes: its losses tell the batches apart.
    model.compile(optimizer=keras.optimizers.Adam(0.0), loss="mse")
    run = train(model, data, epochs=4)
    batches, expected = common.Batches(data.train, 32, 0), []
    for epoch in range(4):
        batches.shuffle(epoch)
        for clean, _ in (batches[i] for i in range(3)):
            expected.append(np.mean((model.predict(clean, verbose=0) - clean) ** 2))
    epochs, losses, _ = np.array(run.curve).T
    np.testing.assert_allclose(epochs, np.arange(1, 13) / 3)
    np.testing.assert_allclose(losses, expected, rtol=1e-4)


def test_the_noise_hangs_on_seed_and_epoch_and_layer(data):
    noises = [keras.layers.GaussianNoise(0.1) for _ in range(2)]
    model = network_of(*noises)
    model.compile(loss="mse")
    clean = common.to_float(data.test)
    validation = common.add_noise(clean, 0.1, 0), clean
    checkpoints = common.Checkpoints(model, common.Batches(data.train, 32, 0), validation,
                                     data="few", epochs=1, noise_std=0.1)

    def drawn(seed, epoch):
        checkpoints.batches.seed = seed
        checkpoints.run = checkpoints.run._replace(loss=epoch * [0.01])
        checkpoints.on_epoch_begin(epoch)
        return [np.array(noise(clean, training=True)).tobytes() for noise in noises]

    assert drawn(0, 0) == drawn(0, 0)
    assert len({*drawn(0, 0), *drawn(0, 1), *drawn(1, 0)}) == 6


@same_sums
def test_stop_or_an_error_goes_back_and_the_run_goes_on_from_there(data, capsys):
    """A killed run, too: what it goes on from is the file alone."""
    whole, stopped, again, third = (small_network() for _ in range(4))
    expected = train(whole, data, folder="a")
    with stop_in(epoch=1, step=1, error=MemoryError), pytest.raises(MemoryError):
        train(stopped, data)
    after_one = weights(stopped)
    with stop_in(epoch=1, step=1):
        run = train(stopped, data)
        assert run == train(stopped, data)
    assert run.loss == expected.loss[:1] and kept() == 1
    assert_same(weights(stopped), after_one)
    assert capsys.readouterr().out.count("Stopped: the network is back at the end of its last") == 2
    finished = train(again, data)
    assert timeless(finished) == timeless(expected)
    assert_same(weights(again), weights(whole))
    assert train(third, data) == finished  # it is not trained again
    assert_same(weights(third), weights(whole))
    assert int(third.optimizer.iterations) == 6


def test_the_network_is_the_runs_whatever_another_callback_puts_in(data, monkeypatch):
    model = small_network()
    monkeypatch.setattr(common.LiveDisplay, "on_train_end", lambda self, logs: model.set_weights(
        [0 * each for each in model.get_weights()]))
    run = train(model, data)
    clean = common.to_float(data.test)
    denoised = model.predict(common.add_noise(clean, 0.1, 0), verbose=0)
    assert run.psnr[-1] == pytest.approx(common.psnr(clean, denoised), abs=2e-4)


def test_further_stops_while_it_goes_back_are_ignored(data, monkeypatch):
    go_back = common.Checkpoints.go_back

    def interrupted(self):
        signal.raise_signal(signal.SIGINT)
        go_back(self)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(common.Checkpoints, "go_back", interrupted)
    with stop_in(epoch=1, step=1):
        assert len(train(small_network(), data).loss) == 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_stop_in_the_first_epoch_is_an_error_and_the_cell_can_run_again(data):
    model = small_network()
    before = weights(model)
    with stop_in(epoch=0, step=1), pytest.raises(common.Halt, match="no trained network") as halt:
        train(model, data)
    [line] = halt.value._render_traceback_()  # what a notebook shows
    assert line.startswith("Halt: Stopped in the first epoch") and "\n" not in line
    assert_same(weights(model), before)
    assert len(train(model, data).loss) == 2


@pytest.mark.filterwarnings("ignore:The object being serialized includes a `lambda`")
def test_everything_that_shapes_a_run_names_it(data):
    def key(model, data=data, epochs=2, batch_size=32, noise_std=0.1, seed=0, drawn=0):
        run = common.Run("Small", "few", 80, 8, epochs, batch_size, noise_std, seed, *8 * [None])
        clean = common.to_float(data.test)
        return common._key(model, run, common.Batches(data.train, batch_size, seed),
                           (common.add_noise(clean, noise_std, drawn), clean))

    keys = [key(small_network()), key(small_network(), data._replace(train=data.train[::-1])),
            key(small_network(), data._replace(test=data.test[::-1])),
            key(small_network(), epochs=3), key(small_network(), batch_size=16),
            key(small_network(), seed=1), key(small_network(noise_std=0.2)),
            key(small_network(rate=2e-3)), key(small_network(common.Muon)),
            key(small_network(), drawn=1), key(small_network(activation="relu")),
            key(small_network(dilation_rate=2))]
    assert len(set(keys)) == len(keys)
    lambdas = []
    for name in "ab":
        Path(f"{name}.py").write_text(f"# {name}\n" * ord(name) + "same = lambda x: x\n")
        lambdas.append(runpy.run_path(f"{name}.py")["same"])
    assert len({key(small_network(activation=each)) for each in lambdas}) == 1
    assert key(small_network()) == keys[0]


def test_names_that_keras_counts_begin_anew_with_the_build_cell(name, data):
    shutil.copy(notebooks.ROOT / f"{name}.ipynb", ".")
    notebooks.alter(".", name, 'layers.ReLU(name=f"relu{i}")',
                    'keras.Sequential([layers.Conv2D(64, 3, padding="same"), layers.ReLU()])')
    one, other = (notebooks.built(name, data, 1, ".")["model"] for _ in range(2))
    assert one.get_config() == other.get_config()
    assert_same(weights(one), weights(other))


def test_trained_network_is_not_taken_for_a_fresh_one(data):
    model = small_network()
    train(model, data)
    for change in ({"epochs": 3}, {"training": "restart"}):
        with pytest.raises(common.Halt, match="trained before: run all cells"):
            train(model, data, **change)
    shutil.rmtree("checkpoints")
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss="mse")
    with pytest.raises(common.Halt, match="trained before: run all cells"):
        train(model, data)


@pytest.mark.parametrize("owner, function, number", [
    (Path, "mkdir", 0), (np, "savez", 0), (np, "savez", 2), (os, "replace", 2), (os, "fsync", 1)])
def test_fault_of_writing_is_a_clear_error_and_loses_one_epoch_at_most(
        monkeypatch, data, owner, function, number):
    original, calls = getattr(owner, function), []

    def failing(*args, **options):
        calls.append(args)
        if len(calls) > number:
            raise OSError(28, "No space left on device")
        return original(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(owner, function, failing)
        with pytest.raises(common.Halt, match="cannot be written to checkpoints: .*No space left"):
            train(small_network(), data)
    files = list(Path("checkpoints").glob("*"))
    assert len(files) == (number == 2)  # one trial, one epoch
    assert len(train(small_network(), data).loss) == 2


def test_a_folder_of_a_drive_that_is_not_mounted_is_not_made(data):
    with pytest.raises(common.Halt, match="to drive/kept: .*No such file.*mount your Drive"):
        train(small_network(), data, folder="drive/kept")
    assert not Path("drive").exists()


def test_damaged_checkpoint_is_named_and_kept(data):
    train(small_network(), data)
    [path] = Path("checkpoints").iterdir()
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(common.Halt, match=f"{path} cannot be read .*Delete it to train anew"):
        train(small_network(), data)
    assert path.exists()


class Edited(keras.layers.Layer):
    code = "relu"

    def call(self, images):
        return getattr(keras.ops, self.code)(images)


def test_a_network_whose_code_has_changed_does_not_go_on(data, monkeypatch):
    def network():
        keras.utils.clear_session()
        keras.utils.set_random_seed(0)
        model = network_of(keras.layers.Conv2D(3, 3, padding="same"), Edited())
        model.compile(loss="mse")
        return model

    run = train(network(), data)
    assert train(network(), data) == run
    monkeypatch.setattr(Edited, "code", "sigmoid")
    changed = network()
    with pytest.raises(common.Halt, match='code .* has changed .*TRAINING = "restart".* all cells'):
        train(changed, data)
    with pytest.raises(common.Halt, match="built again"):
        common.require_trained(changed, run)
    with pytest.raises(common.Halt, match="trained before: run all cells"):
        train(changed, data, training="restart")
    assert len(train(network(), data, training="restart").loss) == 2


@same_sums
def test_restart_begins_anew_and_replaces_the_old_run_after_an_epoch(data):
    finished = train(small_network(), data)
    with stop_in(epoch=0, step=1), pytest.raises(common.Halt):
        train(small_network(), data, training="restart")
    assert train(small_network(), data) == finished
    with stop_in(epoch=1, step=1):
        train(small_network(), data, training="restart")
    assert kept() == 1
    assert train(small_network(), data).loss == finished.loss


@same_sums
def test_several_steps_a_call_as_on_a_gpu_change_nothing(monkeypatch, data):
    one = built("Model3", data, "one")
    expected = notebooks.train(one)
    monkeypatch.setattr(common, "STEPS_PER_CALL", 2)
    several = built("Model3", data, "two")
    run = notebooks.train(several)
    np.testing.assert_allclose(run.loss, expected.loss, rtol=1e-5)
    np.testing.assert_allclose(run.psnr, expected.psnr, rtol=1e-5)
    assert [point[0] for point in run.curve] == pytest.approx([2 / 3, 1, 5 / 3, 2])
    assert [point[2] for point in run.curve] == pytest.approx(
        [float(several["schedule"](step)) for step in (2, 3, 5, 6)])
    predicted = [each["model"].predict(each["noisy_test"], batch_size=3, verbose=0)
                 for each in (one, several)]
    np.testing.assert_allclose(*predicted, atol=1e-4)


def test_what_does_not_fit_is_refused(data):
    with pytest.raises(common.Halt, match="TRAINING is 'anew'; it must be \"resume\""):
        train(small_network(), data, training="anew")
    for other in ({"loss": "mae"}, {"kernel_regularizer": "l2"},
                  {"loss": keras.losses.MeanSquaredError(reduction="sum")}):
        with pytest.raises(common.Halt, match='compile with loss="mse"'):
            train(small_network(**other), data)
    for same in ("mean_squared_error", keras.losses.MeanSquaredError()):
        assert train(small_network(loss=same), data, epochs=1).loss
    clean = common.to_float(data.test)
    other = common.add_noise(clean, 0.2, 0), clean
    for changed in ({"NOISE_STD": 0.2}, {"validation": other}):
        with pytest.raises(common.Halt, match="validation images have other noise: run all cells"):
            train(small_network(), data, **changed)
    with pytest.raises(common.Halt, match="not been compiled: run all cells"):
        train(network_of(keras.layers.ReLU()), data)


def test_a_fit_that_does_not_begin_where_the_run_ended_is_refused(data):
    train(small_network(), data)
    cell = notebooks.code_with("Model1", "model.fit(")
    assert "initial_epoch=checkpoints.epoch" in cell
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(notebooks, "code_with", lambda *_: cell.replace("=checkpoints.epoch", "=0"))
        with pytest.raises(common.Halt, match="next epoch is 2, not 0.*initial_epoch"):
            train(small_network(), data)


def test_run_says_what_it_was(data, capsys):
    variables = built("Model2", data, "checkpoints", epochs=1)
    run = notebooks.train(variables)
    epoch = f"Epoch 1/1, step 3/3   loss {run.loss[0]:.6f}   PSNR {run.psnr[0]:.2f} dB   0:00:00 h"
    printed = capsys.readouterr().out
    assert epoch in printed and str(run) in printed
    assert run[:8] == ("Model2", "photographs", 80, 8, 1, 32, 0.1, 0)
    clean, noisy = variables["clean_test"], variables["noisy_test"]
    assert run.noisy_psnr == common.psnr(clean, noisy)
    denoised = variables["model"].predict(noisy, verbose=0)
    assert run.psnr == [pytest.approx(common.psnr(clean, denoised), abs=2e-4)]
    assert "Epoch 1 of 1 on photographs (80 training images, seed 0), after 0:00:" in str(run)
    assert f"PSNR {run.psnr[0]:.2f} dB on 8 validation images" in str(run)


def test_only_the_network_that_has_learned_writes_pictures(data):
    model = small_network()
    run = train(model, data)
    common.require_trained(model, run._replace(psnr=[run.noisy_psnr + 0.1]))
    with pytest.raises(common.Halt, match="has not learned to denoise"):
        common.require_trained(model, run._replace(psnr=[30.0, run.noisy_psnr]))


def test_diverged_training_ends_in_one_clear_line_and_is_not_kept(data):
    with pytest.raises(common.Halt, match="has diverged.*smaller LEARNING_RATE"):
        train(small_network(rate=1e30), data)
    assert not list(Path("checkpoints").iterdir())


class Handle(list):
    """Stands in for IPython's handle of a display: a list of what it shows, one after another."""

    display = update = list.append


def in_a_notebook(monkeypatch):
    """Let displays be shown as in a notebook. Returns what its text and its figure will show."""
    handles = Handle(), Handle()
    waiting = list(handles)
    monkeypatch.setattr(common.IPython.display, "DisplayHandle", lambda: waiting.pop(0))
    monkeypatch.setattr(common.LiveDisplay, "_draw", DRAW)
    return handles


def set_nothing(self, value):
    pass


@same_sums
def test_live_display_shows_the_run_and_changes_nothing(monkeypatch, data):
    plain, shown = (built("Model3", data, folder) for folder in ("a", "b"))
    expected = notebooks.train(plain)
    crops, denoise = [], common.denoise
    status, figure = in_a_notebook(monkeypatch)
    monkeypatch.setattr(common, "denoise", lambda *args: crops.append(args[1]) or denoise(*args))
    for name in ("next_figure", "next_text"):  # each step shows
        monkeypatch.setattr(common.LiveDisplay, name, property(lambda self: 0, set_nothing),
                            raising=False)
    run = notebooks.train(shown)
    assert repr(status[1]) == "0 of 2 epochs done"
    assert status[2].startswith("Epoch 1/2, step 1/3   loss 0.0")
    assert f"loss {run.loss[0]:.6f}   PSNR {run.psnr[0]:.2f} dB   0:" in status[5]
    assert status[-1] == "2 of 2 epochs done"
    assert len(figure[1:]) == len(crops) == 8  # at the beginning, each step, and the end
    assert all(each.data.startswith(b"\x89PNG") for each in figure[1:])
    for crop in crops:  # 102 pixels, a fifth of the side, with her eyes in it
        np.testing.assert_array_equal(crop, common.noisy_picture()[49:151, 159:261])
    assert timeless(run) == timeless(expected)
    assert_same(weights(shown["model"]), weights(plain["model"]))


def test_live_display_shows_what_a_stop_goes_back_to(monkeypatch, data):
    status, _ = in_a_notebook(monkeypatch)
    with stop_in(epoch=1, step=1):
        train(small_network(), data)
    assert status[-1] == "1 of 2 epochs done"
