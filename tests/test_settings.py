"""The environment variables that redirect a notebook."""

import json
import os
import pathlib
import subprocess
import sys
import types

import pytest

import common
import notebooks


def test_without_variables_the_run_is_the_real_one():
    assert not common.quick_run()
    assert common.number_of_epochs(100) == 100
    assert common.output_path("Model1.png") == pathlib.Path("Model1.png")
    assert common.checkpoint_folder("checkpoints") == pathlib.Path("checkpoints")
    assert common.checkpoint_folder("~/kept") == pathlib.Path.home() / "kept"


def test_epochs_from_outside_replace_the_notebooks(monkeypatch):
    monkeypatch.setenv("DENOISE_EPOCHS", "7")
    assert common.number_of_epochs(100) == 7


@pytest.mark.parametrize("value", ["0", "-3", "2.5", "ten"])
def test_epochs_that_are_no_count_are_refused(monkeypatch, value):
    monkeypatch.setenv("DENOISE_EPOCHS", value)
    with pytest.raises(common.Halt, match=f"(?s)EPOCHS.*'{value}'.*whole number"):
        common.number_of_epochs(100)


def test_a_fraction_in_the_settings_cell_is_refused():
    with pytest.raises(common.Halt, match="whole number"):
        common.number_of_epochs(2.5)


def test_quick_run_is_short_and_writes_under_build_alone(monkeypatch, tmp_path):
    monkeypatch.setenv("DENOISE_QUICK", "1")
    monkeypatch.setenv("DENOISE_EPOCHS", "50")
    monkeypatch.setenv("DENOISE_CHECKPOINTS", str(tmp_path / "drive"))
    assert common.number_of_epochs(100) == common.QUICK_EPOCHS
    assert common.output_path("Model1.png") == pathlib.Path("build/Model1.png")
    assert common.checkpoint_folder("checkpoints") == pathlib.Path("build/checkpoints")


def test_a_misspelt_quick_is_refused(monkeypatch):
    monkeypatch.setenv("DENOISE_QUICK", "yes")
    with pytest.raises(common.Halt, match="DENOISE_QUICK is 'yes'"):
        common.quick_run()


def test_a_misspelt_variable_is_refused(monkeypatch):
    common.print_setup()
    monkeypatch.setenv("DENOISE_EPOCH", "3")
    with pytest.raises(common.Halt, match="no setting DENOISE_EPOCH. .*DENOISE_EPOCHS"):
        common.print_setup()


def test_checkpoints_can_be_kept_elsewhere(monkeypatch, tmp_path):
    monkeypatch.setenv("DENOISE_CHECKPOINTS", str(tmp_path / "drive"))
    assert common.checkpoint_folder("checkpoints") == tmp_path / "drive"
    variables = {"common": common, **notebooks.settings("Model1")}
    exec(notebooks.code_with("Model1", "common.print_setup()"), variables)
    assert variables["CHECKPOINTS"] == tmp_path / "drive"


def in_colab(monkeypatch, mount):
    drive = types.SimpleNamespace(mount=mount)
    monkeypatch.setitem(sys.modules, "google.colab", types.SimpleNamespace(drive=drive))
    monkeypatch.setitem(sys.modules, "google.colab.drive", drive)


@pytest.mark.parametrize("folder, mounted", [
    ("/content/drive/MyDrive/denoising", ["/content/drive"]), ("checkpoints", [])])
def test_checkpoints_on_drive_mount_it_in_colab(monkeypatch, folder, mounted):
    asked = []
    in_colab(monkeypatch, asked.append)
    assert common.checkpoint_folder(folder) == pathlib.Path(folder)
    assert asked == mounted


def test_a_refused_drive_is_one_clear_line(monkeypatch):
    def refuse(folder):
        raise ValueError("mount failed")

    in_colab(monkeypatch, refuse)
    with pytest.raises(common.Halt, match='not mounted .mount failed.*CHECKPOINTS = "checkpoints"'):
        common.checkpoint_folder("/content/drive/MyDrive")


def test_kerass_own_settings_do_not_change_the_networks(tmp_path):
    (tmp_path / "keras.json").write_text(json.dumps(
        {"image_data_format": "channels_first", "floatx": "float16", "epsilon": 1e-3}))
    code = ("import common, notebooks, keras\n"
            "model = notebooks.network('Model3')\n"
            "print(model.output_shape, model.compute_dtype, keras.config.epsilon())")
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={**os.environ, "KERAS_HOME": str(tmp_path),
             "PYTHONPATH": f"{notebooks.ROOT}:{notebooks.ROOT / 'tests'}"})
    assert process.stdout.splitlines()[-1] == "(None, None, None, 3) float32 1e-07"


def test_common_is_imported_where_standard_error_is_closed():
    process = subprocess.run(
        ["sh", "-c", f'"{sys.executable}" -c "import common; print(common.BUNDLE)" 2>&-'],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(notebooks.ROOT)})
    assert process.stdout.strip() == common.BUNDLE
