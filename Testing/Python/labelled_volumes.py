"""Synthetic labelled volumes whose true temperature is known, for the calibrators that look at neighbourhoods."""

import numpy as np
from scipy import ndimage
from scipy.special import softmax

from CalibUncertaintyLib.calibration.local_network import LocalNetwork
from CalibUncertaintyLib.calibration.local_temperature import LocalTemperature

SHAPE = (10, 26, 28)


def smooth(random, shape, sigma):
    field = ndimage.gaussian_filter(random.standard_normal(shape), sigma)
    return field / field.std()


def drawn(random, logits):
    """Labels drawn voxel by voxel from softmax of the logits."""
    cumulative = np.cumsum(softmax(logits, axis=0), axis=0)
    return (random.random(logits.shape[1:]) > cumulative[:-1]).sum(axis=0)


def volume(seed, channels=3, shape=SHAPE, temperature=None):
    """(logits, labels, roi, image): the true temperature is 4 where the image is bright and 0.8 elsewhere, or as given."""
    random = np.random.default_rng(seed)
    logits = np.stack([3 * smooth(random, shape, (1, 2, 2)) for _ in range(channels)])
    image = (200 * smooth(random, shape, (2, 5, 5))).astype(np.float32)
    true = np.where(image > 0, 4.0, 0.8) if temperature is None else temperature
    roi = np.zeros(shape, bool)
    roi[1:-1, 3:-3, 2:-4] = True
    return logits.astype(np.float16), drawn(random, logits / true), roi, image


def random_local(channels=3, regions=False, with_image=True):
    """A calibrator with a network of random weights."""
    outputs = channels if regions else 1
    network = LocalNetwork.fresh(channels, outputs, 3.0, (10.0, 200.0) if with_image else None, 5)
    last = np.random.default_rng(1).normal(0, 0.5, network.weights[-1][0].shape).astype(np.float32)
    weights = (*network.weights[:-1], (last, np.full(outputs, 0.1, np.float32)))
    return LocalTemperature((1.7,) * outputs, LocalNetwork(weights, channels, 3.0, network.image_scale), regions)
