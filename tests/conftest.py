"""Settings of the whole test run, and what several test files use."""

import functools
import http.server
import pathlib
import shutil
import sys
import threading
import types

import matplotlib
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
matplotlib.use("Agg")

import common  # noqa: E402
import notebooks  # noqa: E402
from common import keras  # noqa: E402


def pytest_sessionstart():
    """Let a quick run of the notebooks begin without checkpoints."""
    if common.quick_run():
        shutil.rmtree(notebooks.ROOT / "build" / "checkpoints", ignore_errors=True)


def pytest_collection_modifyitems(items):
    """Do not let nbval compare stderr: drivers and libraries may warn on one machine alone."""
    for item in items:
        if hasattr(item.parent, "skip_compare"):
            item.parent.skip_compare += ("stderr",)


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """Run each unit test in a folder of its own, without the variables of a quick run."""
    monkeypatch.chdir(tmp_path)
    for name in common.VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def weights(own_folder):
    """Bring a copy of weights/ into the test's folder."""
    shutil.copytree(notebooks.ROOT / "weights", "weights")


@pytest.fixture
def site(tmp_path_factory):
    """A web server: its `address` and the `folder` whose files it gives out."""
    folder = tmp_path_factory.mktemp("site")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        yield types.SimpleNamespace(folder=folder, address=address)
        server.shutdown()


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
