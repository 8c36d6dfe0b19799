"""A FAKE of the computation, for tests: speaks its protocol, writes a real Result folder, and uses no network at all.
Asked to calibrate, it stores a real record with made-up figures, and a page; asked to evaluate, a report of made-up figures.

Its "model" calls everything above 110 HU a structure: Organ in the half with the lower i index, Node in the other.

    python fakeProcess.py [--behaviour ok|slow|fail|refuse|hang|garbage|tree|silent] run REQUEST.json --progress json
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import SimpleITK as sitk

STRUCTURES = {1: "Organ", 2: "Node"}
MEMBERS = 2
BEHAVIOURS = ("ok", "uncalibrated", "slow", "fail", "refuse", "hang", "garbage", "tree", "silent")


def say(kind, **fields):
    """Write one line of the protocol."""
    sys.stdout.write(json.dumps({"type": kind, **fields}) + "\n")
    sys.stdout.flush()


def main(argv=None):
    """Behave as asked and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--behaviour", choices=BEHAVIOURS, default="ok")
    parser.add_argument("verb", choices=["run"])
    parser.add_argument("request", type=Path)
    parser.add_argument("--progress", default="json")
    options = parser.parse_args(argv)
    request = json.loads(options.request.read_text(encoding="utf-8"))
    say("progress", stage="read", fraction=0.05, message="reading the CT")
    succeed = {"calibrate": _calibrate, "evaluate": _evaluate}.get(request["verb"], _succeed)
    return _ACTIONS.get(options.behaviour, succeed)(request["arguments"], options.behaviour)


def _succeed(arguments, behaviour):
    steps = 60 if behaviour == "slow" else 4
    for step in range(steps):
        if behaviour == "slow":
            time.sleep(0.05)
        say(
            "progress",
            stage="predict",
            fraction=0.1 + 0.8 * step / steps,
            message=f"fold 1 of 2, tile {step + 1} of {steps}",
        )
    folder = writeResult(arguments, calibrated=behaviour != "uncalibrated" and arguments.get("calibration") != "none")
    say("warning", message="This is the fake model of the tests, not a network.")
    say("progress", stage="write", fraction=1.0, message="done")
    say("result", folder=str(folder))
    return 0


def _calibrate(arguments, behaviour):
    import fakeCalibration  # it lies beside this script

    return fakeCalibration.calibrate(arguments, behaviour)


def _evaluate(arguments, behaviour):
    import fakeEvaluation  # it lies beside this script

    return fakeEvaluation.evaluate(arguments, behaviour)


def _fail(arguments, behaviour):
    print("Traceback (most recent call last):\n  tensor.py\nRuntimeError: CUDA out of memory", file=sys.stderr)
    return 1


def _refuse(arguments, behaviour):
    say("error", message=f"{arguments['model']} has no fold 7; choose one of 0, 1")
    return 1


def _hang(arguments, behaviour):
    if "out" in arguments and "cases" not in arguments:
        out = Path(arguments["out"])
        out.with_name(f".{out.name}.{os.getpid()}.partial").mkdir()
    else:  # a calibration keeps its logits in the temporary folder
        Path(tempfile.gettempdir(), "logits.scratch").write_bytes(b"half written")
    print("about to hang", file=sys.stderr, flush=True)
    while True:
        time.sleep(1)


def _garbage(arguments, behaviour):
    sys.stdout.buffer.write(b'\xff\xfe not json\n{"type": 3}\n[1, 2\n' + b"x" * 200000 + b'\n{"type": "progress"}\n')
    sys.stdout.flush()
    return 0


def _tree(arguments, behaviour):
    grandchild = "import time; time.sleep(600)"
    child = (
        "import subprocess, sys, time; "
        "p = subprocess.Popen([sys.executable, '-c', %r], start_new_session=True); "
        "print(p.pid, flush=True); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", child % grandchild], stdout=subprocess.PIPE, text=True)
    deep = int(process.stdout.readline())
    (Path(arguments["out"]).parent / "pids.json").write_text(json.dumps([process.pid, deep]))
    return _hang(arguments, behaviour)


def _silent(arguments, behaviour):
    return 0


_ACTIONS = {"fail": _fail, "refuse": _refuse, "hang": _hang, "garbage": _garbage, "tree": _tree, "silent": _silent}


def writeResult(arguments, calibrated=True):
    """Segment with the fake model and leave a Result folder as the real computation does.

    :param arguments: as in a request: ct, out, model, roi_mm.
    :return: the folder.
    """
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from CalibUncertaintyLib.uncertainty import measures
    from CalibUncertaintyLib.volume import Volume

    ct, out = Volume.read(arguments["ct"]), Path(arguments["out"])
    members = np.stack([_probabilities(ct, cut) for cut in (106.0, 114.0)])
    probability = members.mean(axis=0)
    label = probability.argmax(axis=0).astype(np.uint8)
    distance = _distance(ct, label)
    roiMm = float(arguments.get("roi_mm", 15.0))
    start, stop = _box(distance <= roiMm)
    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    crop = ct.crop(start, tuple(np.subtract(stop, start)))
    entropy = measures.entropy(probability)
    expected = np.mean([measures.entropy(member) for member in members], axis=0)
    maps = {
        "conf": measures.confidence_complement(probability),
        "margin": measures.margin(probability),
        "entropy": entropy,
        "exp_entropy": expected,
        "mi": np.maximum(entropy - expected, 0),
    }
    (out / "maps").mkdir(parents=True)
    ct.with_array(label).write(out / "segmentation.nii.gz")
    calibratedText = "true" if calibrated else "false"
    common = {"CalibUncertainty.calibrated": calibratedText, "CalibUncertainty.model": "Dataset999_Fake"}
    for index, name in STRUCTURES.items():
        here = probability[index if index <= 2 else 0] * (index <= 2)  # further structures occur nowhere
        data = np.ascontiguousarray(here[box], dtype=np.float32)
        about = {"kind": "probability", "structure": name, "label": str(index), "unit": "probability"}
        _write(crop, data, about, common, out / f"maps/probability_{index}.nrrd")
    for name, values in maps.items():
        about = {"kind": "uncertainty", "measure": name, "unit": measures.MEASURES[name].unit}
        _write(crop, np.ascontiguousarray(values[box], dtype=np.float32), about, common, out / f"maps/{name}.nrrd")
    _write(
        crop,
        np.ascontiguousarray(distance[box]),
        {"kind": "distance", "unit": "mm"},
        common,
        out / "maps/distance.nrrd",
    )
    regions = _regions(ct, label, entropy, distance <= roiMm, probability)
    content = _provenance(arguments, ct, crop, start, calibrated, roiMm, distance, regions, measures.MEASURES, maps)
    (out / "result.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
    return out


def _write(crop, array, about, common, path):
    metadata = {**common, **{f"CalibUncertainty.{key}": value for key, value in about.items()}}
    crop.with_array(array, metadata).write(path)


def _probabilities(ct, cut):
    image = sitk.SmoothingRecursiveGaussian(sitk.Cast(ct.to_sitk(), sitk.sitkFloat32), 1.0)
    foreground = 1 / (1 + np.exp(-np.clip((sitk.GetArrayFromImage(image) - cut) / 12.0, -30, 30)))
    left = np.arange(foreground.shape[2]) < foreground.shape[2] // 2
    return np.stack([1 - foreground, foreground * left, foreground * ~left]).astype(np.float32)


def _distance(ct, label):
    inside = ct.with_array((label > 0).astype(np.uint8)).to_sitk()
    distance = sitk.GetArrayFromImage(sitk.SignedMaurerDistanceMap(inside, squaredDistance=False, useImageSpacing=True))
    return np.maximum(distance, 0).astype(np.float32)


def _box(mask):
    where = np.argwhere(mask)
    return tuple(int(v) for v in where.min(axis=0)), tuple(int(v) + 1 for v in where.max(axis=0))


def _regions(ct, label, entropy, roi, probability):
    above = ((entropy >= 0.5 * np.log(2)) & roi).astype(np.uint8)
    parts = sitk.RelabelComponent(sitk.ConnectedComponent(ct.with_array(above).to_sitk(), True), 5)
    numbered = sitk.GetArrayFromImage(parts)
    regions = []
    for number in range(1, int(numbered.max()) + 1):
        inside = np.argwhere(numbered == number)
        values = entropy[numbered == number]
        peak = inside[int(values.argmax())]
        structure = int(probability[(slice(1, None), *peak)].argmax()) + 1
        wrongMl = float((1 - probability.max(axis=0)[numbered == number]).sum() * ct.voxel_volume_ml)
        regions.append(
            {
                "kind": "uncertain",
                "label": structure,
                "structure": STRUCTURES[structure],
                "voxels": len(inside),
                "volume_ml": len(inside) * ct.voxel_volume_ml,
                "mean": float(values.mean()),
                "peak": float(values.max()),
                "score": wrongMl,
                "share": wrongMl / (max(int((label == structure).sum()), 1) * ct.voxel_volume_ml),
                "distance_mm": 0.0,
                "centroid_ras_mm": ct.ras_from_index(inside.mean(axis=0)).tolist(),
                "centroid_lps_mm": ct.lps_from_index(inside.mean(axis=0)).tolist(),
                "peak_ras_mm": ct.ras_from_index(peak).tolist(),
                "peak_lps_mm": ct.lps_from_index(peak).tolist(),
                "reason": f"Entropy above the threshold at the border of {STRUCTURES[structure]}.",
            }
        )
    regions.sort(key=lambda region: -region["share"])
    return [{"id": number + 1, **region} for number, region in enumerate(regions)]


def _provenance(arguments, ct, crop, start, calibrated, roiMm, distance, regions, known, computed):
    shape, boxShape = ct.array.shape[::-1], crop.array.shape[::-1]
    inRoi = int((distance <= roiMm).sum())
    return {
        "schema": "calib-uncertainty/result",
        "schema_version": 1,
        "status": "complete",
        "created": time.strftime("%Y-%m-%dT%H:%M:%S"),
        "ct": {
            "path": str(arguments["ct"]),
            "kind": "file",
            "description": "fake CT",
            "voxels_digest": ct.voxels_digest(),
        },
        "geometry": {
            "size_xyz": list(shape),
            "spacing_xyz_mm": list(ct.spacing_zyx[::-1]),
            "origin_lps_mm": list(ct.origin_lps),
            "direction_lps": np.asarray(ct.direction_lps).ravel().tolist(),
        },
        "box": {"start_xyz": list(start[::-1]), "size_xyz": list(boxShape)},
        "model": {
            "name": "Dataset999_Fake",
            "folder": str(arguments["model"]),
            "configuration": "3d_fullres",
            "trainer": "nnUNetTrainer",
            "labels": [{"index": index, "name": name} for index, name in STRUCTURES.items()],
            "plans_sha256": "0" * 64,
            "checkpoints": [
                {"fold": f, "checkpoint": "checkpoint_final.pth", "sha256": "0" * 64} for f in range(MEMBERS)
            ],
        },
        "members": [
            {"index": f, "fold": f, "checkpoint": "checkpoint_final.pth", "mirroring": True} for f in range(MEMBERS)
        ],
        "device": "none (fake)",
        "calibration": _calibrationEntry(calibrated),
        "segmentation": {"file": "segmentation.nii.gz"},
        "changed_labels": {"by_pooling": 0, "by_temperature": 0},
        "maps": {
            "probability": [
                {"label": i, "name": name, "file": f"maps/probability_{i}.nrrd", "unit": "probability", "range": [0, 1]}
                for i, name in STRUCTURES.items()
            ],
            "uncertainty": _measureEntries(known, computed),
            "distance": {"file": "maps/distance.nrrd", "unit": "mm"},
        },
        "roi": {"distance_mm": roiMm, "reference": "union", "voxels": inRoi, "volume_ml": inRoi * ct.voxel_volume_ml},
        "threshold": {"measure": "entropy", "value": 0.5 * float(np.log(2)), "unit": "nats", "source": "default"},
        "min_region_ml": 0.0,
        "miss_probability": 0.1,
        "regions": regions,
        "left_out": {"largest_foreground_probability": 0.0},
        "warnings": ["This is the fake model of the tests, not a network."],
        "timings_s": {"predict": 0.0},
        "peak_memory_mb": 0.0,
        "versions": {"fake": "1"},
    }


def _measureEntries(known, computed):
    entries = []
    for identifier, measure in known.items():
        entries.append(
            {
                "measure": identifier,
                "title": measure.title,
                "file": f"maps/{identifier}.nrrd" if identifier in computed else None,
                "unit": measure.unit,
                "range": [0.0, measure.upper(len(STRUCTURES) + 1, MEMBERS)],
                "scale": [0.0, measure.shown(len(STRUCTURES) + 1, MEMBERS)],
                "status": "ok" if identifier in computed or identifier == "entropy_k" else "not_computed",
                "sentence": measure.sentence,
                "threshold": measure.default_threshold(len(STRUCTURES) + 1),
                "threshold_source": "default",
            }
        )
    return entries


def _calibrationEntry(calibrated):
    summary = (
        "Calibrated (temperature 2.03, folds 0–1)" if calibrated else "NOT CALIBRATED: calibration was switched off"
    )
    return {
        "calibrated": calibrated,
        "mode": "pool_logit",
        "method": "temperature" if calibrated else None,
        "temperature": 2.03 if calibrated else 1.0,
        "temperature_interval": [1.9, 2.2] if calibrated else None,
        "member_temperature": 2.1 if calibrated else 1.0,
        "record": "fake" if calibrated else None,
        "reason": "" if calibrated else "calibration was switched off",
        "summary": summary,
    }


if __name__ == "__main__":
    sys.exit(main())
