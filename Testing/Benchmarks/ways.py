"""The ways to an uncertainty map that `engine.py` measures, each in a process of its own: python ways.py SPEC.json

SPEC names the way and its inputs; the last line printed is WORD followed by JSON. `start_s` is Python's start and every import,
also those made later; `work_s` all the rest; `forward_s` the time inside the network alone, taken in the same way for stock and for
ours: around the forward method of the network's class.
"""

from __future__ import annotations

import builtins
import contextlib
import json
import os
import sys
import threading
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
from tree_memory import own_peak_mb

WORD = "FIGURES "


class Forwards:
    """Counts and times the network's forward passes from here on. On a GPU the events are added up when asked."""

    def __init__(self) -> None:
        import torch
        from dynamic_network_architectures.architectures.unet import PlainConvUNet

        self.calls = self.tiles = 0
        self._seconds, self._events = 0.0, []
        original = PlainConvUNet.forward

        def forward(network, x):
            self.calls += 1
            self.tiles += int(x.shape[0])
            if x.is_cuda:
                first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                first.record()
                answer = original(network, x)
                last.record()
                self._events.append((first, last))
                return answer
            began = time.perf_counter()
            answer = original(network, x)
            self._seconds += time.perf_counter() - began
            return answer

        PlainConvUNet.forward = forward

    def figures(self) -> dict:
        """forward_s, calls and tiles so far."""
        if self._events:
            import torch

            torch.cuda.synchronize()
            self._seconds += sum(first.elapsed_time(last) for first, last in self._events) / 1000
            self._events.clear()
        return {"forward_s": self._seconds, "calls": self.calls, "tiles": self.tiles, **_gpu_memory()}


def _gpu_memory() -> dict:
    import torch

    return {"gpu_mb": torch.cuda.max_memory_allocated() / 1e6} if torch.cuda.is_available() else {}


class Imports:
    """Adds up the seconds that this thread spends in import statements from here on, whoever makes them and whenever."""

    def __init__(self) -> None:
        self.seconds, self._depth = 0.0, 0
        thread, original = threading.get_ident(), builtins.__import__

        def timed(*arguments, **named):
            if self._depth or threading.get_ident() != thread:
                return original(*arguments, **named)
            self._depth, began = 1, time.perf_counter()
            try:
                return original(*arguments, **named)
            finally:
                self._depth = 0
                self.seconds += time.perf_counter() - began

        builtins.__import__ = timed


class Clock:
    """start_s: until now since the process was asked for, and later imports; work_s: from now on, less those and `aside_s`."""

    def __init__(self, spec: dict) -> None:
        self._imports = Imports()
        self._start_s, self._began, self.aside_s = time.time() - spec["asked"], time.perf_counter(), 0.0

    def figures(self) -> dict:
        """Both, and the high-water mark of this process, as of now."""
        imports = self._imports.seconds
        work = time.perf_counter() - self._began - self.aside_s - imports
        return {"start_s": self._start_s + imports, "work_s": work, "hwm_mb": own_peak_mb()}


def stock_member(spec: dict) -> dict:
    """One run of nnUNetv2_predict_from_modelfolder with --save_probabilities: nnU-Net's own command, in this process."""
    from nnunetv2.inference.predict_from_raw_data import predict_entry_point_modelfolder

    forwards, clock = Forwards(), Clock(spec)
    # one worker each: there is one CT, and nnU-Net's three would only add to its memory
    sys.argv = [
        "nnUNetv2_predict_from_modelfolder", "-i", spec["ct_folder"], "-o", spec["out"], "-m", spec["model"], "-f",
        *map(str, spec["folds"]), "--save_probabilities", "-device", spec["device"], "-npp", "1", "-nps", "1",
        "--disable_progress_bar", *([] if spec["flips"] else ["--disable_tta"]),
    ]  # fmt: skip
    predict_entry_point_modelfolder()
    return {**clock.figures(), **forwards.figures()}


class RunningMaps:
    """Mean probability, and entropy, expected entropy and mutual information, slice by slice, as a careful script would."""

    def __init__(self) -> None:
        self.mean = self.expected = None
        self.count = 0

    def add(self, p: np.ndarray) -> None:
        """One member's probabilities (C, z, y, x) float32; they may be overwritten."""
        if self.mean is None:
            self.mean, self.expected = p, entropy(p)
        else:
            self.expected += entropy(p)
            self.mean += p
        self.count += 1

    def write(self, folder: Path) -> np.ndarray:
        """Finish, write label, entropy and mutual information, and return the label."""
        import SimpleITK as sitk

        self.mean /= self.count
        self.expected /= self.count
        total = entropy(self.mean)
        label = np.empty(self.mean.shape[1:], np.uint8)
        for index in range(label.shape[0]):
            label[index] = self.mean[:, index].argmax(axis=0)
        folder.mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(sitk.GetImageFromArray(label), str(folder / "label.nii.gz"), useCompression=True)
        np.save(folder / "entropy.npy", total)
        np.save(folder / "mutual_information.npy", total - self.expected)
        return label


def entropy(p: np.ndarray) -> np.ndarray:
    """-sum p ln p over the first axis, nats, a slice at a time."""
    found = np.empty(p.shape[1:], np.float32)
    for index in range(p.shape[1]):
        part = p[:, index]
        found[index] = -(part * np.log(np.maximum(part, 1e-30))).sum(axis=0)
    return found


def stock_average(spec: dict) -> dict:
    """What follows the runs of the command: read the members' .npz one after the other, average, measures, write."""
    clock = Clock(spec)
    maps = RunningMaps()
    for path in spec["npz"]:
        maps.add(np.load(path)["probabilities"])
    label = maps.write(Path(spec["out"]))
    figures = clock.figures()
    if spec.get("reference"):
        save_reference(Path(spec["reference"]), maps.mean, label)
    return figures


def save_reference(folder: Path, p: np.ndarray, label: np.ndarray) -> None:
    """Stock's probabilities and labels, for `compare`."""
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "p.npy", p)
    np.save(folder / "label.npy", label)


def _predictor(spec: dict):
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    device = torch.device(spec["device"])
    predictor = nnUNetPredictor(
        use_mirroring=spec["flips"], device=device, perform_everything_on_device=device.type == "cuda", allow_tqdm=False
    )
    predictor.initialize_from_trained_model_folder(spec["model"], tuple(spec["folds"]))
    return predictor


def stock_in_process(spec: dict) -> dict:
    """The fair opponent: stock predictor in one process, one preprocessing, no .npz, a running mean."""
    import torch
    from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape

    forwards, clock = Forwards(), Clock(spec)
    predictor = _predictor(spec)
    plans, configuration = predictor.plans_manager, predictor.configuration_manager
    preprocessor = configuration.preprocessor_class(verbose=False)
    files = [str(Path(spec["ct_folder"]) / "case_0000.nii.gz")]
    data, _, properties = preprocessor.run_case(files, None, plans, configuration, predictor.dataset_json)
    data, parameters, maps = torch.from_numpy(data), predictor.list_of_parameters, RunningMaps()
    for number, weights in enumerate(parameters):
        predictor.list_of_parameters = [weights]
        logits = predictor.predict_logits_from_preprocessed_data(data).cpu()
        if spec.get("keep_logits"):  # for `reference`, not counted
            began = time.perf_counter()
            Path(spec["keep_logits"]).mkdir(parents=True, exist_ok=True)
            np.save(Path(spec["keep_logits"]) / f"{number}.npy", logits.numpy())
            clock.aside_s += time.perf_counter() - began
        _, p = convert_predicted_logits_to_segmentation_with_correct_shape(
            logits, plans, configuration, predictor.label_manager, properties, return_probabilities=True
        )
        del logits
        maps.add(p)
        del p
    maps.write(Path(spec["out"]))
    return {**clock.figures(), **forwards.figures()}


def reference(spec: dict) -> dict:
    """Stock's own ensemble of the members: their logits added in half precision, resampled, softmax. Not measured."""
    import torch
    from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape

    predictor = _predictor({**spec, "folds": spec["folds"][:1]})
    plans, configuration = predictor.plans_manager, predictor.configuration_manager
    image, properties = plans.image_reader_writer_class().read_images([str(Path(spec["ct_folder"]) / "case_0000.nii.gz")])
    _, _, properties = configuration.preprocessor_class(verbose=False).run_case_npy(
        image, None, properties, plans, configuration, predictor.dataset_json
    )
    pooled = None
    for number in range(len(spec["folds"])):
        logits = torch.from_numpy(np.load(Path(spec["keep_logits"]) / f"{number}.npy"))
        pooled = logits if pooled is None else pooled.add_(logits)
    if len(spec["folds"]) > 1:
        pooled /= len(spec["folds"])
    label, p = convert_predicted_logits_to_segmentation_with_correct_shape(
        pooled, plans, configuration, predictor.label_manager, properties, return_probabilities=True
    )
    save_reference(Path(spec["reference"]), p, label)
    return {}


def ours(spec: dict) -> dict:
    """`segment`: labels, probabilities, five measures, distances and regions, from the CT file to the finished folder."""
    from CalibUncertaintyLib.workflow.options import SegmentOptions
    from CalibUncertaintyLib.workflow.segment import segment

    known = SegmentOptions.names()
    options = {"folds": spec["folds"], "device": spec["device"], "calibration": "none"}
    options.update({"flips": "mean" if spec["flips"] else "off"} if "flips" in known else {"mirroring": spec["flips"]})
    if spec["precision"] != "stock":
        if "precision" not in known:
            return {"skipped": "this library's segment has no option 'precision'"}
        options["precision"] = spec["precision"]
    forwards, clock = Forwards(), Clock(spec)
    result = segment(Path(spec["ct_folder"]) / "case_0000.nii.gz", spec["model"], spec["out"], **options)
    figures = {**clock.figures(), **forwards.figures(), "options": options}
    if spec.get("read_maps"):  # what a viewer needs before it can show anything
        began = time.perf_counter()
        _ = result.segmentation, result.uncertainty("entropy"), [result.probability(index) for index in result.labels]
        figures["read_s"] = time.perf_counter() - began
    told = result.provenance
    said = told.get("timings_s", {})
    if not figures["calls"]:  # compiled: the class's forward method is no longer what runs
        figures["forward_s"] = said.get("forward")
    kept = ("timings_s", "stages", "box", "boxes", "left_out", "peak_memory_mb", "effective_members", "precision", "estimate")
    return {**figures, "told": {key: told[key] for key in kept if key in told}}


def compare(spec: dict) -> dict:
    """Our Result against stock's probabilities and labels, slice by slice, on the CT grid."""
    from comparison import compare_with_reference

    return compare_with_reference(Path(spec["result"]), Path(spec["reference"]))


def material(spec: dict) -> dict:
    """Write the CTs and models that are not there yet."""
    import material as makers

    about = {}
    for path, shape, spacing in spec["cts"]:
        done = Path(path).with_name("about.json")
        if not done.is_file():
            share = makers.write_ct(Path(path), tuple(shape), tuple(spacing))
            done.write_text(json.dumps({"share": share}))
        about[path] = json.loads(done.read_text(encoding="utf-8"))
    for folder, network, n_classes, folds, localised in spec["models"]:
        if not (Path(folder) / f"{folds}.done").is_file():
            makers.write_model(Path(folder), network, n_classes, folds, localised=localised)
            (Path(folder) / f"{folds}.done").touch()
    return {"cts": about}


WAYS = {
    way.__name__: way for way in (stock_member, stock_average, stock_in_process, reference, ours, compare, material)
}


def main() -> None:
    spec = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    if spec["way"] in ("stock_member", "stock_in_process", "ours"):
        import torch

        if spec["device"] == "cpu":
            # what nnU-Net's command does, for every way alike; OMP_NUM_THREADS limits it where somebody set it
            torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count())))
    with contextlib.redirect_stdout(sys.stderr):
        figures = WAYS[spec["way"]](spec)
    print(WORD + json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
