"""The voxels that calibration collects know where they lie, and what lies far off but may be a miss is kept apart."""

import json

import numpy as np
import pytest
from tiny_model import plans, write_ct, write_model

from CalibUncertaintyLib.calibration.softmax import softmax
from CalibUncertaintyLib.inference.boxes import Box
from CalibUncertaintyLib.inference.members import MemberPredictor
from CalibUncertaintyLib.inference.opinions import Opinions
from CalibUncertaintyLib.inference.scratch import Scratch
from CalibUncertaintyLib.model.member_set import MemberSet
from CalibUncertaintyLib.progress import Progress
from CalibUncertaintyLib.uncertainty.roi import distance_to_structures
from CalibUncertaintyLib.volume import Volume
from CalibUncertaintyLib.workflow.labelled import MISS_PROBABILITY, LabelledCase, collect
from CalibUncertaintyLib.workflow.places import PlacesBuilder


def test_windows_are_put_where_they_came_from(tmp_path):
    rng = np.random.default_rng(0)
    whole, mask = rng.random((6, 7, 8)).astype(np.float32), rng.random((6, 7, 8)) > 0.6
    mask[0], mask[:, :2] = False, False
    box = Box((1, 2, 0), (6, 7, 8))
    with Scratch(tmp_path) as scratch:
        builder = PlacesBuilder(box, int(mask.sum()), (2, 1, 1), whole, -whole, scratch)
        gathered = []
        for z in (slice(0, 3), slice(3, 6)):
            for y in (slice(0, 4), slice(4, 7)):
                builder.add((z, y, slice(0, 8)), mask[z, y])
                gathered.append(whole[z, y][mask[z, y]])
        places, values = builder.places(), np.concatenate(gathered)
        assert (places.distance == values).all()
        assert (places.signed == -values).all()
        back = places.scattered(values)
        assert (back == np.where(mask, whole, 0)[box.slices]).all()
        assert (places.gathered(back) == values).all()
        few = places.kept(values > 0.5)
        assert (few.scattered(values[values > 0.5]) == np.where(back > 0.5, back, 0)).all()


@pytest.mark.parametrize("transpose", [(0, 1, 2), (1, 0, 2)])
def test_collected_voxels_lie_where_the_prediction_and_the_reference_say(tmp_path, transpose):
    model = write_model(tmp_path, plans(transpose=transpose), sharpness=20.0)
    path = model / "fold_0" / "checkpoint_final.pth"
    _prefer_background(path), _prefer_background(model / "fold_1" / "checkpoint_final.pth")
    ct = write_ct(tmp_path / "ct.nii.gz", shape=(18, 26, 24))
    volume = Volume.read(ct)
    reference = np.random.default_rng(1).integers(0, 3, volume.array.shape).astype(np.uint8)
    reference[:, :, 12:] = 0
    volume.with_array(reference).write(tmp_path / "labels.nii.gz")
    case = LabelledCase("P", ct, tmp_path / "labels.nii.gz")
    predictor = MemberPredictor(MemberSet.choose(model, flips="off"), "cpu")
    with Scratch(tmp_path) as passing, Scratch(tmp_path) as kept:
        voxels = collect(case, predictor.chosen.models[0], predictor, 1.6, passing, kept, Progress())
        prepared = predictor.prepare([volume])
        opinions = Opinions.ask(predictor, prepared, passing, Progress())
        whole = opinions.whole()
        pooled = np.zeros((3, *whole.shape), np.float32)
        for slab in opinions.slabs(whole):
            pooled[(slice(None), *slab.inside)] = slab.pooled
        truth = prepared.frame.to_network(reference)
        predicted = pooled.argmax(axis=0)
        distance = distance_to_structures(predicted, prepared.spacing)
        near = (distance <= 1.6 + 1e-4) | (distance_to_structures(truth, prepared.spacing) <= 1.6 + 1e-4)
        likely = np.maximum(1 - softmax(pooled)[0], 1 - softmax(pooled / 2.5)[0]) >= MISS_PROBABILITY
        far = likely & ~near
        assert predicted.any()
        assert far.any(), "without such a voxel this test shows nothing"
        both = near | far
        box = tuple(slice(int(i.min()), int(i.max()) + 1) for i in np.nonzero(both))
        assert voxels.places.shape == voxels.far.places.shape == both[box].shape
        for part, mask in ((voxels, near), (voxels.far, far)):
            assert part.size == mask.sum()
            assert (part.places.scattered(np.ones(part.size, bool)) == mask[box]).all()
            assert (part.places.scattered(part.labels) == np.where(mask, truth, 0)[box]).all()
            assert np.allclose(part.places.scattered(part.places.distance), np.where(mask, distance, 0)[box])
            assert (np.sign(part.places.signed) * (predicted[box].reshape(-1)[part.places.positions] > 0) <= 0).all()
        assert voxels.far.far is None
        assert json.dumps(voxels.places.spacing)


def _prefer_background(path):
    """Make structures rare: the network's last layer gets a bias towards background."""
    import torch

    content = torch.load(path, weights_only=True)
    for name, values in content["network_weights"].items():
        if "seg_layers" in name and name.endswith("bias"):
            values[0] += 6.0
    torch.save(content, path)
