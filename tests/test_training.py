"""Training: order of the images, checkpoints, stopping, and what the display says."""

import json

import keras
import numpy as np
import pytest

import common
import notebooks

SETTINGS = {"epochs": 2, "batch_size": 32, "noise_std": 0.1, "seed": 0}


@pytest.fixture(scope="module")
def data(photographs):
    return common.Data("photographs", photographs.train[:80], photographs.test[:8])


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


@pytest.mark.skipif(any("cpu" not in device for device in common.DEVICES),
                    reason="on a GPU, sums are not repeated bit by bit")
def test_stopped_run_goes_on_and_ends_like_one_that_was_not(monkeypatch, tmp_path, data, capsys):
    monkeypatch.setenv("DENOISE_CHECKPOINTS", str(tmp_path / "whole"))
    whole = notebooks.network("Model3")
    expected = common.train(whole, data, **SETTINGS)
    assert len(expected["loss"]) == len(expected["psnr"]) == 2

    monkeypatch.setenv("DENOISE_CHECKPOINTS", str(tmp_path / "stopped"))
    stopped = notebooks.network("Model3")
    with monkeypatch.context() as patch:
        stop_training_in(patch, epoch=1, step=1)
        run = common.train(stopped, data, **SETTINGS)
    assert run["loss"] == expected["loss"][:1]
    assert "after epoch 1 of 2" in capsys.readouterr().out
    after_one = weights(stopped)

    again = notebooks.network("Model3")
    run = common.train(again, data, **SETTINGS)
    assert "Going on after epoch 1 of 2" in capsys.readouterr().out
    for key in ("loss", "psnr", "curve", "learning_rate"):
        assert run[key] == expected[key]
    assert_same(weights(again), weights(whole))

    with monkeypatch.context() as patch:  # the network was as the checkpoint has it
        stop_training_in(patch, epoch=1, step=0)
        (tmp_path / "stopped").rename(tmp_path / "aside")
        fresh = notebooks.network("Model3")
        common.train(fresh, data, **SETTINGS)
    assert_same(weights(fresh), after_one)


def test_stopping_in_the_first_epoch_leaves_the_network_as_it_began(monkeypatch, data, capsys):
    model = notebooks.network("Model2")
    before = weights(model)
    stop_training_in(monkeypatch, epoch=0, step=1)
    run = common.train(model, data, **SETTINGS)
    assert_same(weights(model), before)
    assert run["loss"] == run["curve"] == []
    common.plot_curves(run)
    assert "before the first epoch had finished" in capsys.readouterr().out


def test_finished_run_is_not_trained_again(monkeypatch, data, capsys):
    first = notebooks.network("Model2")
    run = common.train(first, data, **SETTINGS)
    second = notebooks.network("Model2")
    monkeypatch.setattr(second, "fit", lambda *a, **k: pytest.fail("trained again"))
    assert common.train(second, data, **SETTINGS) == run
    assert_same(weights(second), weights(first))
    assert "finished, so it was not trained again: checkpoints" in capsys.readouterr().out


def test_every_setting_names_a_checkpoint_of_its_own(data):
    def path(name="Model2", data=data, loss="mse", rate=1e-3, model=None, **changes):
        model = model or notebooks.network(name)
        schedule = keras.optimizers.schedules.CosineDecay(rate, 100)
        model.compile(optimizer=keras.optimizers.Adam(schedule), loss=loss)
        return common._checkpoint_path(model, data, {**SETTINGS, **changes})

    source = notebooks.network("Model2")
    shallower = keras.Model(source.input, source.get_layer("conv4").output, name="Model2")
    other_data = data._replace(train=data.train[::-1])
    other_test = data._replace(test=data.test[::-1])
    paths = [path(), path("Model1"), path("Model3"), path(data=other_data), path(data=other_test),
             path(loss="mae"), path(epochs=3), path(batch_size=16), path(noise_std=0.2),
             path(seed=1), path(rate=2e-3), path(model=shallower)]
    assert len(set(paths)) == len(paths)
    assert path() == paths[0]


def test_trained_network_is_not_taken_for_a_fresh_one(data):
    model = notebooks.network("Model2")
    common.train(model, data, **SETTINGS)
    with pytest.raises(RuntimeError, match="run the cell that builds it"):
        common.train(model, data, **{**SETTINGS, "epochs": 3})
    for path in common.checkpoint_folder().iterdir():
        path.unlink()
    with pytest.raises(RuntimeError, match="run the cell that builds it"):
        common.train(model, data, **SETTINGS)
    model.compile(optimizer="adam", loss="mse")
    with pytest.raises(RuntimeError, match="run the cell that builds it"):
        common.train(model, data, **SETTINGS)


def test_run_stopped_in_its_first_epoch_can_start_again(monkeypatch, data):
    model = notebooks.network("Model2")
    with monkeypatch.context() as patch:
        stop_training_in(patch, epoch=0, step=1)
        common.train(model, data, **SETTINGS)
    assert len(common.train(model, data, **SETTINGS)["loss"]) == 2


def test_failed_checkpoint_leaves_the_last_good_one(monkeypatch, data):
    model = notebooks.network("Model2")
    original = np.savez
    written = []

    def full(file, **arrays):
        if written:
            file.write(b"half a checkpoint")
            raise OSError(28, "No space left on device")
        written.append(True)
        original(file, **arrays)

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space left"):
        common.train(model, data, **SETTINGS)
    [path] = list(common.checkpoint_folder().iterdir())
    assert len(common._read_checkpoint(path)[0]["loss"]) == 1


def test_run_says_what_it_was(data):
    run = common.train(notebooks.network("Model1"), data, **{**SETTINGS, "epochs": 1})
    assert json.loads(json.dumps(run)) == run
    assert run["data"] == "photographs"
    assert run["seconds"][0] > 0
    clean = common.to_float(data.test)
    assert run["noisy_psnr"] == common.psnr(clean, common.add_noise(clean, 0.1, 0))
    text = common.describe_run(run)
    assert "Trained for 1 epoch on photographs (80 images)" in text
    assert "on 8 noisy test images" in text


def test_curve_averages_add_up_to_the_loss_of_the_epoch(data):
    run = common.train(notebooks.network("Model1"), data, **SETTINGS)
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
    run = common.train(notebooks.network("Model1"), data, **SETTINGS)
    status, curves = handles
    assert status.updates[0].startswith("Epoch 1/2, step 1/3")
    assert status.updates[-1] == common.describe_run(run)
    assert isinstance(curves.updates[-1], common.PngImage)
    assert curves.updates[-1].data.startswith(b"\x89PNG")


@pytest.mark.parametrize("seconds, text", [(0.4, "0 s"), (89, "89 s"), (90, "2 min"),
                                           (3580, "1 h 00 min"), (7500, "2 h 05 min")])
def test_duration(seconds, text):
    assert common.duration(seconds) == text
