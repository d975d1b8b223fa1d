"""Show that the tests bite: break a copy of the bundle in one way after another and run them.

Usage: PYTHONPATH=tests python benchmarks/teeth.py [WORD]   (the faults named by WORD)
Prints which test caught each fault, and exits with 1 if one went by unnoticed.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
from PIL import Image

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


def alter_one_pixel(folder):
    with Image.open(folder / "noisy.png") as picture:
        red, green, blue = picture.getpixel((100, 200))
        picture.putpixel((100, 200), (red ^ 1, green, blue))
        picture.save(folder / "noisy.png")


def forget_outputs(folder):
    notebook = nbformat.read(folder / "Model2.ipynb", as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(notebook, folder / "Model2.ipynb")


NORM = '\n    x = layers.BatchNormalization(momentum=0.9, name=f"batchnorm{i}")(x)'
PREDICT = "denoised_test = model.predict("
FAULTS = {
    "the noise layer's 0.1 becomes 0.2": in_notebooks("Noise(NOISE_STD", "Noise(2 * NOISE_STD"),
    "the skip is dropped from Model2": in_notebooks(SKIP, "", ["Model2"]),
    "batch norm is dropped from Model3": in_notebooks(NORM, "", ["Model3"]),
    "the loss becomes MAE": in_notebooks('loss="mse"', 'loss="mae"'),
    "the batch becomes 64": in_notebooks("BATCH_SIZE = 32", "BATCH_SIZE = 64"),
    "evaluation forgets the noise": in_notebooks(f"{PREDICT}noisy", f"{PREDICT}clean"),
    "a resumed run starts its noise anew": in_file("common.py", "enumerate(generators)", "()"),
    "each epoch has the noise of the first": in_file(
        "common.py", "[self.batches.seed, epoch, i]", "[self.batches.seed, i]"),
    "a resumed run takes the first epoch's order": in_file(
        "common.py", "self.batches.shuffle(epoch)", "self.batches.shuffle(0)"),
    "the network does not learn": in_notebooks("common.Muon(schedule)", "common.Muon(0.0)"),
    "Muon is reduced to Adam": in_file("common.py", "min(variable.shape[2:]) < 16", "True"),
    "Newton-Schulz takes one step": in_file("common.py", "_ in range(5):", "_ in range(1):"),
    "the live crop is of another picture": in_notebooks(
        "LiveDisplay(checkpoints, noisy)", "LiveDisplay(checkpoints, noisy[::-1])"),
    "the validation noise is drawn anew each epoch": in_notebooks(
        "validation_data=validation", "validation_data=type('Fresh', (keras.utils.PyDataset,), {"
        "'__module__': '', '__len__': lambda self: 1, '__getitem__': lambda self, index: ("
        "common.add_noise(validation[1], NOISE_STD, None), validation[1])})()"),
    "the PNG is written without clipping": in_notebooks("np.clip(restored, 0, 1)", "restored"),
    "the PNG is min-max stretched": in_notebooks(
        "np.clip(restored, 0, 1)", "(restored - restored.min()) / np.ptp(restored)"),
    "windows overlap by too little": in_file(
        "common.py", "receptive_radius(model)\n", "receptive_radius(model) - 1\n"),
    "the strength of the noise is ignored": in_file(
        "common.py", "relative_noise * np.sqrt", "np.sqrt"),
    "alpha is denoised as a colour": in_file(
        "common.py", "> 2 else 1]  # without", "> 1 else 1]  # without"),
    "impulses are half as many as they should": in_notebooks(
        "amount = 2 * mse / np.mean(images", "amount = mse / np.mean(images", ["Model1"]),
    "an unfinished run stands beside the others": in_file(
        "common.py", " and len(each.loss) == each.epochs", ""),
    "another file is kept as common.py": in_notebooks("if f'\\nBUNDLE", "if False and f'\\nBUNDLE"),
    "an earlier badge is kept": in_file("benchmarks/publish.py", 'BADGE.sub("", title.source)',
                                        "title.source"),
    "checkpoints stay where the settings say": in_notebooks(
        "CHECKPOINTS = common.output_path(CHECKPOINTS)\n", ""),
    "a hundred images are evaluated": in_notebooks(
        "common.score(clean_test, images)", "common.score(clean_test[:100], images[:100])"),
    "the residual's sign is reversed": in_notebooks(
        "removed = -inside.predict(noisy_test", "removed = inside.predict(noisy_test", ["Model2"]),
    "classical methods are tuned on test images": in_notebooks(
        "tuning = common.to_float(data.train[:64])", "tuning = clean_test[:64]", ["Model3"]),
    "noisy.png is altered in one pixel": alter_one_pixel,
    "a notebook is committed without outputs": forget_outputs,
    "a shared cell is edited in one notebook": in_notebooks(
        "print(data)", "print(data, end='\\n')", ["Model3"]),
}


def copy_tree(folder):
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True,
                           check=True).stdout.split("\0")
    for name in filter(None, files):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)


def run_tests(folder):
    """Run the suite in `folder`. Returns the name of the test that failed first, or None.

    Raises RuntimeError if it did not get as far as to run a test: that catches nothing.
    """
    data = os.environ.get("DENOISE_DATA") or "photos"
    environment = {**os.environ, "DENOISE_QUICK": "1",
                   "DENOISE_DATA": data if data == "photos" else str(Path(data).resolve())}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--nbval-lax", "--nbval-current-env",
               "tests", *(f"{name}.ipynb" for name in NAMES)]
    process = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if process.returncode == 0:
        return None
    failed = re.search(r"^FAILED (.+?)(?: - .*)?$", process.stdout, re.MULTILINE)
    if not failed:
        raise RuntimeError(process.stdout[-3000:] + process.stderr[-3000:])
    return failed[1]


def check(name, fault):
    """Run the tests on a copy with `fault`. Returns whether they did what they should."""
    with tempfile.TemporaryDirectory() as folder:
        copy_tree(Path(folder))
        if fault:
            fault(Path(folder))
        failed = run_tests(folder)
    verdict = f"caught by {failed}" if failed else "passes"
    print(f"{name:42} {verdict}", flush=True)
    return bool(failed) == bool(fault)


if __name__ == "__main__":
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    chosen = {name: fault for name, fault in FAULTS.items() if word in name}
    for fault in chosen.values():  # one that does not apply is to show now
        with tempfile.TemporaryDirectory() as folder:
            copy_tree(Path(folder))
            fault(Path(folder))
    good = [check(name, fault) for name, fault in {"nothing is broken": None, **chosen}.items()]
    sys.exit(not all(good))
