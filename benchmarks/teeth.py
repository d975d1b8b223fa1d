"""Show that the tests bite: break a copy of the bundle in one way after another and run them.

Usage: PYTHONPATH=tests python benchmarks/teeth.py   (make teeth)
DENOISE_DATA, if it names a file, does so by its whole path, as make has it. Prints which test
caught each fault, and exits with 1 if one went by unnoticed.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from notebooks import NAMES, ROOT, SKIP, alter


def in_file(name, old, new):
    """Return a fault that replaces `old` by `new` in the file `name`."""
    def apply(folder):
        text = (folder / name).read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {name}"
        (folder / name).write_text(text.replace(old, new), encoding="utf-8")
    return apply


def in_notebooks(old, new, names=NAMES):
    """Return a fault that replaces `old` by `new` in one code cell of each of the notebooks."""
    return lambda folder: [alter(folder, name, old, new) for name in names]


def forget_outputs(folder):
    subprocess.run([sys.executable, "-m", "nbconvert", "--log-level=ERROR", "--clear-output",
                    "--inplace", "Model2.ipynb"], cwd=folder, check=True)


NORM = '\n    x = layers.BatchNormalization(momentum=0.9, name=f"batchnorm{i}")(x)'
FAULTS = {
    "the noise layer's 0.1 becomes 0.2": in_notebooks("Noise(NOISE_STD", "Noise(2 * NOISE_STD"),
    "the skip is dropped from Model2": in_notebooks(SKIP, "", ["Model2"]),
    "batch norm is dropped from Model3": in_notebooks(NORM, "", ["Model3"]),
    "the network does not learn": in_notebooks("common.Muon(schedule)", "common.Muon(0.0)"),
    "Muon is reduced to Adam": in_file("common.py", "min(shape[2:]) >= 16", "False"),
    "a resumed run starts its noise anew": in_file("common.py", "enumerate(generators)", "()"),
    "a resumed run takes the first epoch's order": in_file(
        "common.py", "self.batches.shuffle(epoch)", "self.batches.shuffle(0)"),
    "evaluation forgets the noise": in_notebooks("predict(noisy_test, b", "predict(clean_test, b"),
    "the PNG is min-max stretched": in_notebooks(
        "np.clip(restored, 0, 1)", "(restored - restored.min()) / np.ptp(restored)"),
    "windows overlap by too little": in_file(
        "common.py", "receptive_radius(model)\n", "receptive_radius(model) - 1\n"),
    "a notebook is committed without outputs": forget_outputs,
    "a shared cell is edited in one notebook": in_notebooks(
        "print(data)", "print(data, end='\\n')", ["Model3"]),
}


def run_tests(folder):
    """Run the suite in `folder`. Returns the name of the test that failed first, or None.

    Raises RuntimeError if it did not get as far as to run a test: that catches nothing.
    """
    environment = {**os.environ, "DENOISE_QUICK": "1",
                   "DENOISE_DATA": os.environ.get("DENOISE_DATA") or "photos"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--nbval-lax", "--nbval-current-env",
               "tests", *(f"{name}.ipynb" for name in NAMES)]
    process = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    failed = re.search(r"^FAILED (.+?)(?: - .*)?$", process.stdout, re.MULTILINE)
    if process.returncode and not failed:
        raise RuntimeError(process.stdout[-3000:] + process.stderr[-3000:])
    return failed and failed[1]


def check(name, fault):
    """Run the tests on a copy with the `fault`. Returns whether they caught it."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".*", "build", "checkpoints"),
                        dirs_exist_ok=True)
        fault(Path(folder))
        failed = run_tests(folder)
    print(f"{name:42} {f'caught by {failed}' if failed else 'passes'}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(not all([check(name, fault) for name, fault in FAULTS.items()]))
