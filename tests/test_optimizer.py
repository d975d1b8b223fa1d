"""Muon against its formulas, written out in NumPy."""

import keras
import numpy as np
import pytest

import common

RATE, STEPS = 0.01, 4


def gradients(shape):
    return np.random.default_rng(1).normal(0, 1, (STEPS, *shape)).astype(np.float32)


def steps_of(optimizer, shape, grads):
    """Let the `optimizer` go from a kernel of ones. Returns its values after each step."""
    kernel = keras.Variable(np.ones(shape, np.float32))
    values = []
    for gradient in grads:
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [kernel])
        values.append(np.array(keras.ops.convert_to_numpy(kernel)))
    return np.array(values)


def muon_in_numpy(shape, grads, momentum):
    kernel, buffer, values = np.ones(shape), np.zeros(shape), []
    for gradient in grads.astype(np.float64):
        buffer = momentum * buffer + gradient
        wide = (gradient + momentum * buffer).reshape(-1, shape[-1]).T
        wide /= np.sqrt(np.sum(wide**2))
        for _ in range(5):
            square = wide @ wide.T
            wide = 3.4445 * wide - 4.7750 * square @ wide + 2.0315 * square @ square @ wide
        kernel = kernel - RATE * 0.2 * np.sqrt(max(wide.shape)) * wide.T.reshape(shape)
        values.append(kernel)
    return np.array(values)


@pytest.mark.parametrize("shape", [(3, 3, 64, 64), (1, 1, 16, 40), (3, 1, 24, 16)])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_wide_kernels_take_muons_step(shape, momentum):
    grads = gradients(shape)
    ours = steps_of(common.Muon(RATE, momentum), shape, grads)
    np.testing.assert_allclose(ours, muon_in_numpy(shape, grads, momentum), atol=2e-5)


@pytest.mark.parametrize("shape", [(3, 3, 3, 64), (3, 3, 64, 3), (3, 3, 15, 64), (64,), (64, 64)])
def test_all_other_variables_take_adams_step(shape):
    grads = gradients(shape)
    np.testing.assert_array_equal(steps_of(common.Muon(RATE), shape, grads),
                                  steps_of(keras.optimizers.Adam(RATE), shape, grads))
