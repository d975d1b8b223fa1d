"""Settings of the whole test run, and what several test files use."""

import pathlib
import shutil
import sys

import matplotlib
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "teaching")]
matplotlib.use("Agg")

import common  # noqa: E402
import notebooks  # noqa: E402
from common import keras  # noqa: E402


def pytest_sessionstart():
    """Let a quick run of the notebooks begin without checkpoints."""
    if common.QUICK:
        shutil.rmtree(notebooks.ROOT / "build" / "checkpoints", ignore_errors=True)


def pytest_collection_modifyitems(items):
    """Do not let nbval compare stderr: drivers and libraries may warn on one machine alone."""
    for item in items:
        if hasattr(item.parent, "skip_compare"):
            item.parent.skip_compare += ("stderr",)


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """Run each unit test in a folder of its own, not as a quick run, and without live figures."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(common, "QUICK", False)
    monkeypatch.setattr(common.LiveDisplay, "_draw", lambda self: None)
    for name in ("DENOISE_DATA", "DENOISE_EPOCHS", "DENOISE_QUICK"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def weights(own_folder):
    """Bring a copy of weights/ into the test's folder."""
    shutil.copytree(notebooks.ROOT / "weights", "weights")


def network_of(*stack):
    """Return a network of any input size from layers that follow each other."""
    image = x = keras.Input((None, None, 3))
    for layer in stack:
        x = layer(x)
    return keras.Model(image, x)


def random_image(*shape, dtype=np.uint8, seed=0):
    return common.from_float(np.random.default_rng(seed).random(shape), dtype)


@pytest.fixture(scope="session")
def photographs():
    return common._photographs()


@pytest.fixture(scope="module", params=notebooks.NAMES)
def name(request):
    return request.param
