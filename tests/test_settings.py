"""The settings of a notebook, and the environment variables that change them from outside."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import common
import notebooks

GOOD = {"name": "Model1", "epochs": 100, "batch_size": 32, "noise_std": 0.1, "seed": 0}


def test_without_variables_the_run_is_the_real_one():
    assert common.set_up(**GOOD) == 100
    with Image.open("noisy.png") as made_anew:
        np.testing.assert_array_equal(made_anew, common.noisy_picture())
    assert common.output_path("Model1.png") == pathlib.Path("Model1.png")
    assert common.output_path("~/kept") == pathlib.Path.home() / "kept"


def test_epochs_from_outside_replace_the_notebooks(monkeypatch):
    monkeypatch.setenv("DENOISE_EPOCHS", "7")
    assert common.set_up(**GOOD) == 7


@pytest.mark.parametrize("changed, reason", [
    ({"epochs": 0}, "EPOCHS.* is 0; it must be a whole number"), ({"epochs": 2.5}, "is 2.5"),
    ({"epochs": "ten"}, "is 'ten'"), ({"batch_size": 0}, "BATCH_SIZE is 0"),
    ({"batch_size": "32"}, "BATCH_SIZE is '32'"), ({"seed": -1}, "SEED is -1; .*at least 0"),
    ({"noise_std": 25}, "NOISE_STD is 25; .*25 / 255 = 0.098"), ({"noise_std": 0}, "is 0; "),
    ({"noise_std": "0.1"}, "is '0.1'; "), ({"noise_std": float("nan")}, "is nan"),
    ({"name": "My model"}, "NAME is 'My model'.*spaces"), ({"name": "Modèle"}, "is 'Modèle'"),
    ({"name": ""}, "NAME is ''")])
def test_settings_that_cannot_be_used_are_refused_in_one_line(changed, reason):
    with pytest.raises(common.Halt, match=reason) as refusal:
        common.set_up(**GOOD | changed)
    assert "\n" not in str(refusal.value)


def test_quick_run_is_short_and_writes_under_build_alone(name, monkeypatch, tmp_path):
    monkeypatch.setattr(common, "QUICK", True)
    monkeypatch.setenv("DENOISE_EPOCHS", "50")
    for folder in ("checkpoints", tmp_path / "drive" / "checkpoints"):
        variables = {"common": common, "np": np, "Image": Image, "BUNDLE": common.BUNDLE,
                     **notebooks.settings(name), "CHECKPOINTS": folder}
        exec(notebooks.code_with(name, "common.set_up("), variables)
        assert variables["EPOCHS"] == common.QUICK_EPOCHS
        assert variables["CHECKPOINTS"] == pathlib.Path("build/checkpoints")


def test_environment_is_obeyed_by_a_new_process(tmp_path):
    (tmp_path / "keras.json").write_text('{"image_data_format": "channels_first"}')
    code = ("import common, json, notebooks; "
            "print(json.dumps([common.QUICK, notebooks.network('Model3').output_shape]))")
    path = f"{notebooks.ROOT}{os.pathsep}{notebooks.ROOT / 'tests'}"
    for quick, expected in (("1", True), ("0", False)):
        process = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True,
            env={**os.environ, "KERAS_HOME": str(tmp_path), "DENOISE_QUICK": quick,
                 "PYTHONPATH": path})
        assert json.loads(process.stdout.splitlines()[-1]) == [expected, [None, None, None, 3]]
        assert process.stderr == ""
