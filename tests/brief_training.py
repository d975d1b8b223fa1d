"""Train a small Model3 as its notebook does, in a process that is killed and started again.

Usage: PYTHONPATH=. python tests/brief_training.py RESULT EPOCHS [EPOCH STEP]
RESULT is an npz file to write. The process kills itself after STEP of EPOCH (both from 0).
"""

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np

import common
import notebooks


def train(epochs, folder="checkpoints"):
    """Train on 80 patches of photographs. Returns the Run and the weights."""
    photographs = common._photographs()
    data = common.Data("photographs", photographs.train[:80], photographs.test[:8])
    variables = notebooks.built("Model3", data, epochs, CHECKPOINTS=folder)
    return notebooks.train(variables), variables["model"].get_weights()


def read(result):
    """Return the Run and the weights from the file that this script wrote."""
    with np.load(result) as arrays:
        weights = [arrays[name] for name in arrays.files if name != "run"]
        return common.Run(**json.loads(str(arrays["run"]))), weights


class Announcing(common.LiveDisplay):
    moment = None

    def on_train_begin(self, logs=None):
        print("begins after", self.checkpoints.epoch, "epochs", flush=True)
        super().on_train_begin()

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch, logs)
        if (self.epoch, self.step - 1) == self.moment:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    common.LiveDisplay = Announcing
    Announcing.moment = tuple(map(int, sys.argv[3:]))
    run, weights = train(int(sys.argv[2]))
    with common.atomic(Path(sys.argv[1])) as temporary, open(temporary, "wb") as file:
        np.savez(file, *weights, run=json.dumps(run._asdict()))
