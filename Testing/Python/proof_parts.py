"""A proof with known figures: what `write_proof` is given, made by the real accumulators from voxels drawn at random."""

import copy

import numpy as np

from CalibUncertaintyLib.evaluation.metrics import CalibrationMetrics, mean_over_cases

NAMES = ("background", "Parotis/links", "Rückenmark <b>", "下顎骨 $x$")
KEPT = ("nll", "ece_toplabel", "brier_mean", "accuracy", "mean_confidence", "signed_gap")
CHECKPOINTS = [{"fold": fold, "checkpoint": "checkpoint_final.pth", "sha256": f"{fold}a" * 32} for fold in (0, 1)]


def voxels(seed: int, n: int = 4000, sharpness: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits (C, N), over-confident by `sharpness`, and the labels (N,) they were drawn for."""
    random = np.random.default_rng(seed)
    true = random.normal(scale=2.0, size=(len(NAMES), n))
    labels = (true + random.gumbel(size=true.shape)).argmax(axis=0)
    return true * sharpness * random.uniform(0.9, 1.2), labels


def figures(temperature: float, cases: dict[str, int]) -> dict:
    """What `workflow.fit.figures` returns, of cases drawn with these seeds."""
    results, pooled = [], CalibrationMetrics(len(NAMES))
    for seed in cases.values():
        logits, labels = voxels(seed)
        p = np.exp(logits / temperature)
        metrics = CalibrationMetrics(len(NAMES))
        metrics.add((p / p.sum(axis=0)).astype(np.float32), labels)
        results.append(metrics.result())
        pooled.merge(metrics)
    whole = pooled.result()
    return {
        "per_case": mean_over_cases(results),
        "pooled": {key: value for key, value in whole.items() if key != "bins"},
        "cases": {case: {key: r[key] for key in KEPT} for case, r in zip(cases, results, strict=True)},
        "bins": whole["bins"],
        "changed_by_temperature": 0,
    }


def with_everything(found: dict, offset: float = 0.0) -> dict:
    """The same with the figures that are optional: by structure, Dice, voxels."""
    found = copy.deepcopy(found)
    found["classes"] = {name: {"bins": found["bins"], "ece": 0.01 + offset} for name in NAMES}
    for place, values in enumerate(found["cases"].values()):
        moved = offset * (1 + place / 10)  # no ties
        overlaps = {name: 0.8 + 0.01 * place + moved for name in NAMES[1:]}
        values.update(
            brier_sum=values["brier_mean"] * 4, n=4000, dice=0.8 + 0.01 * place + moved, dice_per_class=overlaps
        )
        values.update(ece_class=0.02 + 0.001 * place + moved, smooth_ece=0.03 + moved)
    return found


def proof(n: int = 8, **changes) -> dict:
    """A proof of `n` cases, before (T = 1) and after (T = 2)."""
    cases = {f"case_{index}": index for index in range(n)}
    return {
        "title": "Calibration of Dataset001_Neck",
        "model": {
            "name": "Dataset001_Neck", "configuration": "3d_fullres", "trainer": "nnUNetTrainer",
            "labels": {"1": NAMES[1], "2": NAMES[2], "3": NAMES[3]}, "plans_sha256": "f" * 64,
        },
        "members": {
            "folds": [0, 1], "checkpoint": "checkpoint_final.pth", "mirroring": True, "checkpoints": CHECKPOINTS,
        },
        "described": "folds 0 and 1",
        "mode": "pool_logit",
        "method": "temperature",
        "parameters": {"temperature": 2.0, "interval": [1.9, 2.125], "status": "ok"},
        "in_words": "Temperature 2.000 (95 % interval 1.90 to 2.13)",
        "roi": {"distance_mm": 15.0, "reference": "union"},
        "cases": list(cases),
        "evaluated_on": "held_out",
        "created": "2026-01-02T03:04:05+00:00",
        "versions": {"calib-uncertainty": "0.1.0"},
        "classes": list(NAMES),
        "figures": {"before": figures(1.0, cases), "after": figures(2.0, cases)},
        "compared": [],
        **changes,
    }  # fmt: skip
