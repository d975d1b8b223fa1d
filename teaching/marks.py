"""Read what students handed in, and tell the one who marks it what there is to see.

Usage: PYTHONPATH=.:tests python teaching/marks.py FOLDER   (make marks HANDINS=FOLDER)
FOLDER holds a folder or a zip file for each student, or what Blackboard exports: files named
…_USER_attempt_DATE_NAME, of which the latest attempt counts. Prints a table and writes it to
build/marks.csv. Outputs are found by what they say, wherever they stand. Nothing is executed or
unpacked, and nothing outside FOLDER is read.
"""

import collections
import csv
import io
import json
import re
import sys
import zipfile
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

import common
from notebooks import NAMES, ROOT

ATTEMPT = re.compile(r"_([^_]+)_attempt_([\d-]+)_?")
LIMIT = 50_000_000  # bytes of a file
NETWORKS = {"Model1": "114,307 parameters, 5 Conv2D",
            "Model2": "114,307 parameters, 5 Conv2D, 1 Add",
            "Model3": "114,819 parameters, 5 Conv2D, 4 BatchNormalization, 1 Add"}
COLUMNS = ("student", "model", "ran", "network", "epochs", "seed", "data", "test", "notebook",
           "picture", "remarks")


def handins(folder):
    """Return {student: paths} of what lies in `folder`: of several attempts, the latest."""
    latest = {}
    for path in sorted(folder.iterdir()):
        match = ATTEMPT.search(path.name)
        student, when = match.groups() if match else (path.name.removesuffix(".zip"), "")
        known, paths = latest.get(student, (when, []))
        if when >= known:
            latest[student] = (when, [*(paths if when == known else []), path])
    return {student: paths for student, (_, paths) in sorted(latest.items())}


def members(path, root):
    """Yield the names, sizes and readers of the files in `path`: a folder, a zip file or a file."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                inside = PurePosixPath(info.filename.replace("\\", "/"))
                if inside.is_absolute() or ".." in inside.parts:
                    raise ValueError(f"it holds {info.filename}, which leads out of it")
                yield inside.name, info.file_size, lambda info=info: archive.read(info)
        return
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if not file.resolve().is_relative_to(root):
            raise ValueError(f"{file.name} leads out of the folder")
        if file.is_file():
            yield ATTEMPT.split(file.name)[-1], file.stat().st_size, file.read_bytes


def read(paths, root):
    """Return {(model, suffix): content} of a student's files, and remarks on those unread."""
    files, remarks = {}, []
    for path in paths:
        try:
            for name, size, content in members(path, root):
                match = re.match(r"(Model[123])\b.*\.(\w+)$", name, re.IGNORECASE)
                if match and size > LIMIT:
                    raise ValueError(f"{name} has {size:,} bytes")
                if match:
                    files[match[1].capitalize(), match[2].lower()] = content()
        except Exception as error:  # a damaged zip file raises errors of many kinds
            remarks.append(f"{path.name} cannot be read: {error}")
    return files, remarks


def outputs(cell):
    """Return what a `cell` printed or showed as text."""
    texts = [output.get("text") or output.get("data", {}).get("text/plain", "")
             for output in cell.get("outputs", [])]
    return re.sub(r"\x1b\[[\d;]*m", "", "\n".join("".join(text) for text in texts))


def how_it_ran(cells):
    """Say whether the code `cells` were run from top to bottom without an error."""
    for cell in cells:
        for output in cell.get("outputs", []):
            if output["output_type"] == "error":
                return output["ename"]
    counts = [cell.get("execution_count") for cell in cells if "".join(cell["source"]).strip()]
    return "yes" if counts == list(range(1, len(counts) + 1)) else "not in one go"


def network(text):
    """Say which layers and parameters the last table of layers in `text` has."""
    table = text.rpartition('Model: "')[2]
    kinds = collections.Counter(re.findall(r"\((Conv2D|BatchNormalization|Add)\)", table))
    said = [f"{number} {kind}" for kind in ("Conv2D", "BatchNormalization", "Add")
            if (number := kinds[kind])]
    first, skip = re.search(r"(\w+)\s+\(InputLayer\)", table), re.search(r"\(Add\)[^├└]*", table)
    if first and skip and f"{first[1]}[0]" in skip[0]:
        said.append("skip from the clean image")
    return ", ".join([f"{each} parameters" for each in re.findall(
        r"Trainable params: ([\d,]+)", table)[:1]] + said)


def about_notebook(model, content):
    """Return what the outputs of a notebook say, as entries of a row."""
    cells = [cell for cell in json.loads(content)["cells"] if cell["cell_type"] == "code"]
    text = "\n".join(map(outputs, cells))
    row = {"ran": how_it_ran(cells), "network": network(text)}
    if row["network"] == NETWORKS[model]:
        row["network"] = "as asked"
    for columns, pattern in {
            ("epochs", "data", "seed"): r"^Epoch (\d+) of \d+ on (.+?) \(.*seed (\d+)\)",
            ("test",): r"test images of .+? +noisy [\d.]+ +\S+ +([\d.]+)$",
            ("notebook",): r"^noisy\.png +noisy [\d.]+ +\S+ +([\d.]+)$"}.items():
        for match in re.finditer(pattern, text, re.MULTILINE):
            row |= dict(zip(columns, match.groups()))
    return row


def pixels(content):
    picture = Image.open(io.BytesIO(content), formats=["PNG"])
    if picture.size != (512, 512):
        raise ValueError("it has {} × {} pixels, not 512 × 512".format(*picture.size))
    return np.array(picture.convert("RGB"))


def rows_of(student, files, remarks, seen):
    """Yield a student's rows. `seen` has the pictures so far: {bytes: [whose, with which seed]}."""
    for model in NAMES:
        row, said = {"student": student, "model": model}, list(remarks)
        others = sorted(suffix for name, suffix in files if name == model and suffix != "png")
        try:
            row |= about_notebook(model, files[model, "ipynb"])
        except KeyError:
            said.append(f"no notebook, but {', '.join(others)}" if others else "no notebook")
        except Exception as error:
            said.append(f"the notebook cannot be read: {error}")
        if (model, "png") in files:
            try:
                picture = pixels(files[model, "png"])
                row["picture"] = f"{common.psnr(common.clean_picture(), picture):.2f}"
                if row["picture"] != row.get("notebook"):
                    said.append("the picture is not the notebook's")
                same = seen.setdefault((model, picture.tobytes()), [])
                said += [f"same picture as {whose} (seed {seed})" for whose, seed in same[:2]]
                same.append((student, row.get("seed", "?")))
            except Exception as error:
                said.append(f"the picture cannot be read: {error}")
        yield row | {"remarks": "; ".join(said)}


def table(folder):
    """Return the rows of all hand-ins in `folder`."""
    published = {(name, pixels((ROOT / f"{name}.png").read_bytes()).tobytes()):
                 [("the published one", common.read_run(name).seed)] for name in NAMES}
    return [row for student, paths in handins(folder).items()
            for row in rows_of(student, *read(paths, folder.resolve()), published)]


if __name__ == "__main__":
    if not Path(sys.argv[1] or "?").is_dir():
        sys.exit(f"HANDINS is {sys.argv[1]!r}; it must be the folder with what was handed in.")
    rows = table(Path(sys.argv[1]))
    Path("build").mkdir(exist_ok=True)
    with open("build/marks.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    widths = [max(len(str(row.get(each, ""))) for row in [*rows, {each: each}])
              for each in COLUMNS[:-1]] + [0]
    for row in [dict(zip(COLUMNS, COLUMNS)), *rows]:
        print("  ".join(f"{row.get(each, ''):{n}}" for each, n in zip(COLUMNS, widths)).rstrip())
