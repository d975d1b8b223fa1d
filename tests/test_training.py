"""Training: order of the images, checkpoints, stopping, and what the display says."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import brief_training
import common
import notebooks

SETTINGS = {"epochs": 2, "batch_size": 32, "noise_std": 0.1, "seed": 0}


same_sums = pytest.mark.skipif(common._gpus(), reason="a GPU does not repeat its sums bit by bit")


@pytest.fixture(scope="module")
def data(photographs):
    return common.Data("photographs", photographs.train[:80], photographs.test[:8])


def network(name):
    """Build and compile as the notebook does, for a run with SETTINGS on 80 images."""
    images = common.Data("80 images", range(80), range(0))
    return notebooks.built(name, images, SETTINGS["epochs"])["model"]


def small_network():
    """A network that is quick to compile, for tests of what is around the training."""
    keras.utils.set_random_seed(0)
    image = keras.Input((None, None, 3), name="clean")
    noisy = keras.layers.GaussianNoise(0.1, name="noise")(image)
    denoised = keras.layers.Conv2D(3, 3, padding="same", name="conv")(noisy)
    model = keras.Model(image, denoised, name="Small")
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss="mse")
    return model


def weights(model):
    return [weight.copy() for weight in model.get_weights()]


def assert_same(these, those):
    for this, that in zip(these, those, strict=True):
        np.testing.assert_array_equal(this, that)


def stop_training_in(monkeypatch, epoch, step):
    """Raise KeyboardInterrupt, as the stop button does, at this epoch and step (from 0)."""
    original = common._LiveDisplay.on_train_batch_end

    def stopping(self, batch, logs=None):
        original(self, batch, logs)
        if (self.epoch, batch) == (epoch, step):
            raise KeyboardInterrupt

    monkeypatch.setattr(common._LiveDisplay, "on_train_batch_end", stopping)


def test_an_epoch_shows_every_image_once_in_an_order_of_its_own():
    images = np.arange(80, dtype=np.uint8).reshape(80, 1, 1, 1)

    def order(seed, epoch):
        batches = common.Batches(images, 32, seed, epoch)
        assert [len(batches[i][0]) for i in range(len(batches))] == [32, 32, 16]
        seen = np.concatenate([batches[i][0] for i in range(len(batches))])
        assert seen.dtype == np.float32
        return np.round(seen.ravel() * 255).astype(int).tolist()

    assert sorted(order(0, 0)) == list(range(80))
    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(*which)) for which in [(0, 0), (0, 1), (1, 0), (1, 1)]}) == 4


def test_input_and_target_are_the_clean_images(data):
    inputs, targets = common.Batches(data.train, 32, 0, 0)[0]
    np.testing.assert_array_equal(inputs, targets)
    assert 0 <= inputs.min() < 0.5 < inputs.max() <= 1


@same_sums
def test_stopped_run_goes_on_and_ends_like_one_that_was_not(monkeypatch, tmp_path, data, capsys):
    monkeypatch.setenv("DENOISE_CHECKPOINTS", str(tmp_path / "whole"))
    whole = network("Model3")
    expected = common.train(whole, data, **SETTINGS)
    assert len(expected["loss"]) == len(expected["psnr"]) == 2

    monkeypatch.setenv("DENOISE_CHECKPOINTS", str(tmp_path / "stopped"))
    stopped = network("Model3")
    with monkeypatch.context() as patch:
        stop_training_in(patch, epoch=1, step=1)
        run = common.train(stopped, data, **SETTINGS)
    assert run["loss"] == expected["loss"][:1]
    assert "after epoch 1 of 2" in capsys.readouterr().out

    again = network("Model3")
    run = common.train(again, data, **SETTINGS)
    assert "Going on after epoch 1 of 2" in capsys.readouterr().out
    for key in ("loss", "psnr", "curve", "learning_rate"):
        assert run[key] == expected[key]
    assert_same(weights(again), weights(whole))


@same_sums
def test_stopping_twice_puts_the_network_back_twice(monkeypatch, data):
    model = small_network()
    stop_training_in(monkeypatch, epoch=1, step=1)
    common.train(model, data, **SETTINGS)
    after_one = weights(model)
    run = common.train(model, data, **SETTINGS)
    assert len(run["loss"]) == 1
    assert_same(weights(model), after_one)


def test_stopping_in_the_first_epoch_leaves_the_network_as_it_began(monkeypatch, data, capsys):
    model = small_network()
    before = weights(model)
    stop_training_in(monkeypatch, epoch=0, step=1)
    run = common.train(model, data, **SETTINGS)
    assert_same(weights(model), before)
    assert run["loss"] == run["curve"] == []
    common.plot_curves(run)
    assert "before the first epoch had finished" in capsys.readouterr().out


def test_finished_run_is_not_trained_again(monkeypatch, data, capsys):
    first = small_network()
    run = common.train(first, data, **SETTINGS)
    second = small_network()
    monkeypatch.setattr(second, "fit", lambda *a, **k: pytest.fail("trained again"))
    assert common.train(second, data, **SETTINGS) == run
    assert_same(weights(second), weights(first))
    assert "finished, so it was not trained again: checkpoints" in capsys.readouterr().out


def test_every_setting_names_a_checkpoint_of_its_own(data):
    def path(name="Model2", data=data, loss="mse", rate=1e-3, model=None, **changes):
        model = model or network(name)
        schedule = keras.optimizers.schedules.CosineDecay(rate, 100)
        model.compile(optimizer=keras.optimizers.Adam(schedule), loss=loss)
        return common._checkpoint_name(model, data, {**SETTINGS, **changes})

    source = network("Model2")
    shallower = keras.Model(source.input, source.get_layer("conv4").output, name="Model2")
    other_data = data._replace(train=data.train[::-1])
    other_test = data._replace(test=data.test[::-1])
    paths = [path(), path("Model1"), path("Model3"), path(data=other_data), path(data=other_test),
             path(loss="mae"), path(epochs=3), path(batch_size=16), path(noise_std=0.2),
             path(seed=1), path(rate=2e-3), path(model=shallower)]
    assert len(set(paths)) == len(paths)
    assert path() == paths[0]


def test_trained_network_is_not_taken_for_a_fresh_one(data):
    model = small_network()
    common.train(model, data, **SETTINGS)
    with pytest.raises(RuntimeError, match="run the cell that builds it"):
        common.train(model, data, **{**SETTINGS, "epochs": 3})
    shutil.rmtree("checkpoints")
    with pytest.raises(RuntimeError, match="run the cell that builds it"):
        common.train(model, data, **SETTINGS)
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss="mse")
    with pytest.raises(RuntimeError, match="run the cell that builds it"):
        common.train(model, data, **SETTINGS)


def test_run_stopped_in_its_first_epoch_can_start_again(monkeypatch, data):
    model = small_network()
    with monkeypatch.context() as patch:
        stop_training_in(patch, epoch=0, step=1)
        common.train(model, data, **SETTINGS)
    assert len(common.train(model, data, **SETTINGS)["loss"]) == 2


def checkpoints():
    """Return the names of the files in the folder of the checkpoints, less the run's key."""
    return sorted(path.name.partition(".")[2] for path in Path("checkpoints").iterdir())


def epochs_in(name):
    [path] = [each for each in Path("checkpoints").iterdir() if each.name.split(".", 1)[1] == name]
    return len(common._read_checkpoint(path)[0]["loss"])


def fail_at_write(monkeypatch, number):
    """Let writing the checkpoint of this number (from 0) fail half-way, as on a full disk."""
    original = np.savez
    written = []

    def full(file, **arrays):
        if len(written) == number:
            file.write(b"half a checkpoint")
            raise OSError(28, "No space left on device")
        written.append(True)
        original(file, **arrays)

    monkeypatch.setattr(np, "savez", full)


def test_full_disk_stops_with_a_clear_error_and_leaves_the_last_good_checkpoint(monkeypatch, data):
    model = small_network()
    with monkeypatch.context() as patch:
        fail_at_write(patch, 2)
        with pytest.raises(common.CheckpointError, match="(?s)No space left.*Make room there"):
            common.train(model, data, **SETTINGS)
    assert checkpoints() == ["npz", "previous.npz"]
    assert (epochs_in("npz"), epochs_in("previous.npz")) == (1, 0)
    assert len(common.train(model, data, **SETTINGS)["loss"]) == 2


def test_checkpoints_can_be_taken_to_another_folder(monkeypatch, data, capsys):
    with monkeypatch.context() as patch:
        fail_at_write(patch, 2)
        with pytest.raises(common.CheckpointError, match=r"move the files Small-\w+\.\* "):
            common.train(small_network(), data, **SETTINGS)
    Path("checkpoints").rename("elsewhere")
    common.train(small_network(), data, **SETTINGS, checkpoints="elsewhere")
    assert "Going on after epoch 1 of 2" in capsys.readouterr().out


@pytest.mark.parametrize("rename", range(5))  # two epochs: 0 | 1 and its previous | 2, likewise
def test_fault_between_two_renames_loses_one_epoch_at_most(monkeypatch, data, rename):
    original, done = os.replace, []

    def failing(*paths):
        if len(done) == rename:
            raise OSError(5, "Input/output error")
        done.append(paths)
        original(*paths)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", failing)
        with pytest.raises(common.CheckpointError, match="Input/output error"):
            common.train(small_network(), data, **SETTINGS)
    if rename:
        path = common._checkpoint_name(small_network(), data, SETTINGS)
        run, _ = common._newest_checkpoint(Path("checkpoints", path))
        assert len(run["loss"]) == (rename - 1) // 2
    assert len(common.train(small_network(), data, **SETTINGS)["loss"]) == 2


def test_unwritable_folder_shows_before_the_first_epoch(monkeypatch, data):
    model = small_network()

    def locked(path, *args, **kwargs):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(model, "fit", lambda *a, **k: pytest.fail("training began"))
        patch.setattr(Path, "mkdir", locked)
        with pytest.raises(common.CheckpointError, match="checkpoints.*Permission denied"):
            common.train(model, data, **SETTINGS)
    assert len(common.train(model, data, **SETTINGS)["loss"]) == 2


@same_sums
@pytest.mark.parametrize("damage", [lambda content: content[:-1000], lambda content: b"",
                                    lambda content: content.replace(content[900:1000], 100 * b"?")])
def test_damaged_checkpoint_is_set_aside_for_the_one_before_it(data, capsys, damage):
    whole = small_network()
    expected = common.train(whole, data, **SETTINGS)
    [newest] = [path for path in Path("checkpoints").iterdir() if "previous" not in path.name]
    newest.write_bytes(damage(newest.read_bytes()))
    again = small_network()
    run = common.train(again, data, **SETTINGS)
    output = capsys.readouterr().out
    assert re.search(r"damaged \(.*\) and was set aside as checkpoints.*damaged\.", output)
    assert "Going on after epoch 1 of 2" in output
    assert checkpoints() == ["damaged", "npz", "previous.npz"]
    assert run["loss"] == expected["loss"]
    assert_same(weights(again), weights(whole))


def test_several_steps_a_call_as_on_a_gpu_change_nothing(monkeypatch, tmp_path, data):
    one = network("Model3")
    expected = common.train(one, data, **SETTINGS)
    monkeypatch.setattr(common, "_gpus", lambda: ["gpu:0"])
    monkeypatch.setattr(common, "STEPS_PER_CALL_ON_GPU", 2)
    several = network("Model3")
    run = common.train(several, data, **SETTINGS, checkpoints=tmp_path / "gpu")
    clean = common.to_float(data.test)
    assert several.evaluate(clean, clean, batch_size=4, verbose=0) == pytest.approx(
        one.evaluate(clean, clean, batch_size=4, verbose=0), rel=1e-4)
    np.testing.assert_allclose(run["loss"], expected["loss"], rtol=1e-5)
    np.testing.assert_allclose(run["psnr"], expected["psnr"], rtol=1e-5)
    assert [epoch for epoch, _ in run["curve"]] == pytest.approx([2 / 3, 1, 5 / 3, 2])


@same_sums
def test_where_both_checkpoints_are_damaged_training_starts_anew(data, capsys):
    expected = common.train(small_network(), data, **SETTINGS)
    for path in Path("checkpoints").iterdir():
        path.write_bytes(b"damaged")
    run = common.train(small_network(), data, **SETTINGS)
    assert run["loss"] == expected["loss"]
    assert capsys.readouterr().out.count("was set aside") == 2


@same_sums
def test_one_setting_trains_afresh(monkeypatch, data, capsys):
    finished = common.train(small_network(), data, **SETTINGS)
    again = common.train(small_network(), data, **SETTINGS, training="afresh")
    assert again["seconds"] != finished["seconds"]
    assert again["loss"] == finished["loss"]
    output = capsys.readouterr().out
    assert 'Now set TRAINING = "resume"' in output and "not trained again" not in output
    stop_training_in(monkeypatch, epoch=1, step=1)
    model = small_network()
    common.train(model, data, **SETTINGS, training="afresh")
    assert 'Run this cell again, with TRAINING = "resume", to go on' in capsys.readouterr().out
    assert len(common.train(model, data, **SETTINGS)["loss"]) == 1
    assert "Going on after epoch 1" in capsys.readouterr().out


def test_run_that_goes_on_elsewhere_names_both_backends(monkeypatch, data):
    model = small_network()
    with monkeypatch.context() as patch:
        stop_training_in(patch, epoch=1, step=1)
        begun = common.train(model, data, **SETTINGS)
    monkeypatch.setattr(common, "describe_backend", lambda: "another device")
    finished = common.train(model, data, **SETTINGS)
    assert finished["backend"] == f"{begun['backend']}, then another device"


def test_checkpoint_that_cannot_be_read_is_not_taken_for_damaged(monkeypatch, data):
    common.train(small_network(), data, **SETTINGS)

    def locked(path):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", locked)
        with pytest.raises(PermissionError):
            common.train(small_network(), data, **SETTINGS)
    assert checkpoints() == ["npz", "previous.npz"]


def test_an_unknown_way_to_train_is_refused(data):
    with pytest.raises(ValueError, match="TRAINING is 'anew'; it must be \"resume\""):
        common.train(small_network(), data, **SETTINGS, training="anew")


def brief_training_in_a_process(*moment):
    """Run brief_training.py, which kills itself at `moment`. Returns what it printed."""
    command = [sys.executable, notebooks.ROOT / "tests" / "brief_training.py", "result.npz", "5"]
    process = subprocess.run([*command, *map(str, moment)], capture_output=True, text=True,
                             env={**os.environ, "PYTHONPATH": str(notebooks.ROOT)})
    assert process.returncode == (-signal.SIGKILL if moment else 0), process.stderr
    return process.stdout


@same_sums
def test_killed_run_goes_on_and_ends_like_one_that_was_not(monkeypatch):
    assert "Going on" not in brief_training_in_a_process(0, 1)
    assert "Going on" not in brief_training_in_a_process(1, 2)
    assert "Going on after epoch 1 of 5" in brief_training_in_a_process(3, 0)
    assert "Going on after epoch 3 of 5" in brief_training_in_a_process()
    monkeypatch.setenv("DENOISE_CHECKPOINTS", "elsewhere")
    result, expected = brief_training.read("result.npz"), brief_training.train(epochs=5)
    assert brief_training.same(result, expected)
    assert len(result[0]["loss"]) == len(result[0]["seconds"]) == 5
    other = (expected[0], [*expected[1][:-1], expected[1][-1] + 1])
    assert not brief_training.same(result, other)


def test_run_says_what_it_was(data):
    run = common.train(small_network(), data, **{**SETTINGS, "epochs": 1})
    assert json.loads(json.dumps(run)) == run
    assert run["data"] == "photographs"
    assert run["seconds"][0] > 0
    clean = common.to_float(data.test)
    assert run["noisy_psnr"] == common.psnr(clean, common.add_noise(clean, 0.1, 0))
    text = common.describe_run(run)
    assert "Trained for 1 epoch on photographs (80 images)" in text
    assert "on 8 noisy test images" in text


def test_curve_averages_add_up_to_the_loss_of_the_epoch(data):
    run = common.train(small_network(), data, **SETTINGS)
    epochs, losses = np.array(run["curve"]).T
    np.testing.assert_allclose(epochs, [1 / 3, 2 / 3, 1, 4 / 3, 5 / 3, 2])
    np.testing.assert_allclose(losses.reshape(2, 3).mean(axis=1), run["loss"], rtol=1e-4)


def display_at(epochs, step, seconds_a_step):
    run = {"epochs": epochs, "steps": 1000, "psnr": [], "monitored_images": 2000}
    display = common._LiveDisplay(run)
    display.epoch, display.first_step, display.start = 0, 1, 0
    return display._progress(step, 0.005, (step - 1) * seconds_a_step)


def test_display_shows_the_time_left_and_how_to_shorten_hours():
    text = display_at(epochs=100, step=11, seconds_a_step=0.25)
    assert "Epoch 1/100, step 11/1,000" in text
    assert "6 h 57 min left" in text
    assert "set EPOCHS = 7 (about 29 min)" in text


def test_display_does_not_advise_on_short_runs():
    text = display_at(epochs=1, step=11, seconds_a_step=0.25)
    assert text.endswith("4 min left")


class Handle:
    """Stands in for IPython's handle of a display that can be updated."""

    def __init__(self):
        self.updates = []

    def update(self, content, raw=False):
        self.updates.append(content["text/plain"] if raw else content)


def test_display_in_a_notebook_ends_with_the_result_and_the_curves(monkeypatch, data):
    handles = []
    monkeypatch.setattr(common.IPython, "get_ipython", lambda: True)
    monkeypatch.setattr(common, "display", lambda *a, **k: handles.append(Handle()) or handles[-1])
    run = common.train(small_network(), data, **SETTINGS)
    status, curves = handles
    assert status.updates[0].startswith("Epoch 1/2, step 1/3")
    assert status.updates[-1] == common.describe_run(run)
    assert isinstance(curves.updates[-1], common.PngImage)
    assert curves.updates[-1].data.startswith(b"\x89PNG")


@pytest.mark.parametrize("seconds, text", [(0.4, "0 s"), (89, "89 s"), (90, "2 min"),
                                           (3580, "1 h 00 min"), (7500, "2 h 05 min")])
def test_duration(seconds, text):
    assert common.duration(seconds) == text
