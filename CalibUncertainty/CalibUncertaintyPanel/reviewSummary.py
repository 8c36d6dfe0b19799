"""The case in numbers, from a Result folder: what the report says on top. For threads: it reads every map."""

from dataclasses import dataclass

SURE, POSSIBLE = 0.95, 0.05  # the two probabilities between which a structure's volume is given


@dataclass(frozen=True)
class StructureVolumes:
    """Volumes of one structure in mL.

    `drawn` - of the model's label. `expected` - sum of the probability times the voxel's volume. `sure` and `possible` - of
    all voxels with a probability of at least 95 % and 5 %. Our definitions.
    """

    name: str
    drawn: float
    expected: float
    sure: float
    possible: float


@dataclass(frozen=True)
class CaseSummary:
    """`meanEntropy` in nats, over the region of interest; over the whole box where the model found no structure."""

    structures: tuple
    meanEntropy: float
    roiMl: float


def summarize(result):
    """Volumes of every structure and the mean entropy of a `Result`.

    :return: `CaseSummary`.
    :raises CalibUncertaintyError: if a map is missing.
    """
    from CalibUncertaintyLib.result_regions import region_of_interest

    structures = tuple(_volumes(result, label, name) for label, name in result.labels.items())
    entropy = result.uncertainty("entropy")
    values = entropy.array
    if result.of_body or result.provenance["maps"]["distance"]["file"] is not None:
        values = values[region_of_interest(result)]
    mean = float(values.mean(dtype=float)) if values.size else 0.0
    return CaseSummary(structures, mean, values.size * entropy.voxel_volume_ml)


def _volumes(result, label, name):
    probability = result.probability(label)
    voxel, array = probability.voxel_volume_ml, probability.array
    # Of regions that overlap, a label is only the part that belongs to no region inside.
    drawn = (array >= 0.5).sum() if result.overlapping else (result.segmentation.array == label).sum()
    return StructureVolumes(
        name,
        float(drawn * voxel),
        float(array.sum(dtype=float) * voxel),
        float((array >= SURE).sum() * voxel),
        float((array >= POSSIBLE).sum() * voxel),
    )
