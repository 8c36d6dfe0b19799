"""The uncertain regions of a Result as surfaces with a value for each region. numpy, SimpleITK and VTK; no scene, no Qt."""

from dataclasses import dataclass

import numpy as np
import vtk.util.numpy_support

from .contourSurfaces import levelSurface

VALUE, REGION = "Value", "Region"
MOST_VOXELS = 6_000_000  # of the grey surface of all structures: beyond it the labels are thinned out


@dataclass(frozen=True)
class RegionSurfaces:
    """regions: vtkPolyData in RAS mm with the point arrays Value and Region (number as listed), or None where there is none.

    structures: vtkPolyData of all predicted structures together, for orientation, or None. title, unit, upper: of Value, whose
    scale is 0 to upper.
    """

    regions: object
    structures: object
    title: str
    unit: str
    upper: float


def surfacesOf(result):
    """Find the listed uncertain regions again in the map they were made from. Touches no scene, so a thread may do it.

    The value of a region is the calibrated chance that it is a real error where the Result knows it of all regions, else the
    mean of the measure. Possible misses are not in it: they were not found by the measure.

    :param result: `Result`.
    :raises CalibUncertaintyError: if a map is missing.
    """
    from CalibUncertaintyLib.result_regions import RegionVoxels
    from CalibUncertaintyLib.uncertainty.regions import POSSIBLE_MISS

    listed = [region for region in result.regions if region.kind != POSSIBLE_MISS]
    provenance = result.provenance
    values, title, unit, upper = _values(listed, provenance)
    structures = _structures(result.segmentation)
    if not listed or provenance["maps"]["distance"]["file"] is None:
        return RegionSurfaces(None, structures, title, unit, upper)
    volume, threshold = result.uncertainty(provenance["threshold"]["measure"]), provenance["threshold"]["value"]
    voxels = RegionVoxels.of_result(result, listed)
    numbered = np.zeros(volume.array.shape, np.int32)
    for region in listed:
        numbered.reshape(-1)[voxels.of[region.id]] = region.id
    surface = levelSurface(np.where(numbered > 0, volume.array, np.float32(0)), volume.ijk_to_ras, threshold)
    if surface is None:
        return RegionSurfaces(None, structures, title, unit, upper)
    _addValues(surface, numbered, volume, values)
    return RegionSurfaces(surface, structures, title, unit, upper)


def _values(listed, provenance):
    """{number: value} of the regions, and what the value is."""
    chances = [getattr(region, "chance", None) for region in listed]
    if listed and None not in chances:
        values = {region.id: float(chance) for region, chance in zip(listed, chances, strict=True)}
        return values, "Chance of a real error", "probability", 1.0
    measure = provenance["threshold"]["measure"]
    entry = next(item for item in provenance["maps"]["uncertainty"] if item["measure"] == measure)
    values = {region.id: float(region.mean) for region in listed}
    end = float((entry.get("scale") or entry["range"])[1])  # where the colours end in the slices, too
    return values, f"Mean {entry['title'][:1].lower()}{entry['title'][1:]}", entry["unit"], end


def _addValues(surface, numbered, volume, values):
    """A point of a surface lies between a voxel inside and one outside: it belongs to the region of the one inside."""
    points = vtk.util.numpy_support.vtk_to_numpy(surface.GetPoints().GetData()).astype(float)
    index = (np.c_[points, np.ones(len(points))] @ np.linalg.inv(volume.ijk_to_ras).T)[:, 2::-1]
    limit = np.array(numbered.shape) - 1
    low = np.clip(np.floor(index + 1e-3), 0, limit).astype(int)
    high = np.clip(np.ceil(index - 1e-3), 0, limit).astype(int)
    region = np.maximum(numbered[tuple(low.T)], numbered[tuple(high.T)])
    table = np.zeros(int(numbered.max()) + 1, np.float32)
    for number, value in values.items():
        if number < len(table):
            table[number] = value
    for name, array in ((VALUE, table[region]), (REGION, region.astype(np.int32))):
        scalars = vtk.util.numpy_support.numpy_to_vtk(array, deep=True)
        scalars.SetName(name)
        surface.GetPointData().AddArray(scalars)
    surface.GetPointData().SetActiveScalars(VALUE)


def _structures(segmentation):
    """Surface of all structures together, from every n-th voxel where there are very many."""
    labelled = np.argwhere(segmentation.array.any(axis=(1, 2))).ravel()
    if not len(labelled):
        return None
    step = max(1, int(np.ceil((segmentation.array.size / MOST_VOXELS) ** (1 / 3))))
    thinned = segmentation.array[::step, ::step, ::step] > 0
    matrix = segmentation.ijk_to_ras @ np.diag([step, step, step, 1.0])
    return levelSurface(thinned, matrix, 0.5)
