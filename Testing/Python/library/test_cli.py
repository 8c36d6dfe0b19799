"""The terminal: exit codes, one-line refusals, JSON lines, and stopping."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import SimpleITK as sitk
from tiny_model import plans, write_ct, write_model

from CalibUncertaintyLib.cli import main, parser
from CalibUncertaintyLib.result import Result

COMMAND = [sys.executable, "-m", "CalibUncertaintyLib"]


def run(*arguments, **options):
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=300, **options)


def test_segment_leaves_a_result_and_says_where(model, ct, tmp_path):
    done = run("segment", ct, "--model", model, "--out", tmp_path / "out", "--folds", "0", "--no-mirroring")
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "out") in done.stderr
    assert "NOT CALIBRATED" in done.stderr
    assert "perform_everything_on_device" not in done.stderr
    assert [m["fold"] for m in Result.open(tmp_path / "out").provenance["members"]] == [0]


@pytest.mark.parametrize(
    ("words", "measures"),
    [
        ([], "standard"),
        (["--measures", "all"], "all"),
        (["--measures", "standard", "--measure", "epkl"], "standard"),
        (["--measures", "rmi", "varratio"], ["rmi", "varratio"]),
        (["--measures", "all", "mi"], ["all", "mi"]),  # which `segment` refuses
    ],
)
def test_measures_are_named_on_the_command_line(words, measures):
    assert parser().parse_args(["segment", "ct", "--model", "model", "--out", "out", *words]).measures == measures


def test_json_progress_is_one_object_a_line_and_nothing_else_on_stdout(model, ct, tmp_path):
    done = run("segment", ct, "--model", model, "--out", tmp_path / "out", "--no-mirroring", "--progress", "json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert {line["type"] for line in lines} == {"progress", "warning", "result"}
    fractions = [line["fraction"] for line in lines if line["type"] == "progress"]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert {line["stage"] for line in lines if line["type"] == "progress"} >= {"read", "preprocess", "predict", "maps", "write"}
    assert lines[-1] == {"type": "result", "folder": str(tmp_path / "out")}


def test_a_request_file_does_what_the_options_do(model, ct, tmp_path):
    arguments = {"ct": str(ct), "model": str(model), "out": str(tmp_path / "out"), "folds": [1], "mirroring": False, "roi_mm": 5.0}
    (tmp_path / "request.json").write_text(json.dumps({"verb": "segment", "arguments": arguments}))
    done = run("run", tmp_path / "request.json", "--progress", "json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {"type": "result", "folder": str(tmp_path / "out")}
    assert Result.open(tmp_path / "out").provenance["roi"]["distance_mm"] == 5.0


@pytest.mark.parametrize(
    "request_text",
    ["{", "[]", '{"verb": "fly", "arguments": {}}', '{"verb": "segment", "arguments": {"ct": "a"}}',
     '{"verb": "segment", "arguments": {"ct": "a", "model": "b", "out": "c", "colour": 1}}',
     '{"verb": "evaluate", "arguments": {"cases": "a", "model": "b"}}',
     '{"verb": "evaluate", "arguments": {"cases": "a", "model": "b", "out": "c", "threshold": 1}}'],
)  # fmt: skip
def test_a_wrong_request_is_refused_in_one_json_line(request_text, tmp_path, capsys):
    (tmp_path / "request.json").write_text(request_text)
    assert main(["run", str(tmp_path / "request.json"), "--progress", "json"]) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["type"] == "error"


def test_a_request_evaluates_and_names_its_page(tmp_path, capsys):
    from evaluate_parts import labelled_cases, write_calibrated_model, write_list

    model = write_calibrated_model(tmp_path)
    cases = write_list(tmp_path / "cases.json", labelled_cases(model, tmp_path / "cases", seeds=(1,)))
    arguments = {
        "cases": str(cases), "model": str(model), "out": str(tmp_path / "out"), "flips": "off", "measures": ["entropy"],
        "configurations": [{"name": "as chosen", "calibration": "auto"}],
    }  # fmt: skip
    (tmp_path / "request.json").write_text(json.dumps({"verb": "evaluate", "arguments": arguments}))
    capsys.readouterr()
    assert main(["run", str(tmp_path / "request.json"), "--progress", "json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[-1] == {"type": "result", "folder": str(tmp_path / "out" / "report.html")}
    content = json.loads((tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8"))
    assert list(content["configurations"]) == ["as chosen"]


BAD = {
    "missing CT": lambda p, ct, model: [p / "no.nii.gz", "--model", model],
    "empty CT": lambda p, ct, model: [_file(p / "empty.nii.gz", b""), "--model", model],
    "text": lambda p, ct, model: [_file(p / "text.nii.gz", b"no image"), "--model", model],
    "truncated CT": lambda p, ct, model: [_file(p / "cut.nii.gz", ct.read_bytes()[:5000]), "--model", model],
    "NaN": lambda p, ct, model: [_image(p / "nan.nii.gz", np.full((4, 5, 6), np.nan, np.float32)), "--model", model],
    "one slice": lambda p, ct, model: [_image(p / "one.nii.gz", np.zeros((1, 5, 6), np.int16)), "--model", model],
    "colour": lambda p, ct, model: [_image(p / "rgb.nrrd", np.zeros((4, 5, 6, 3), np.uint8), True), "--model", model],
    "constant": lambda p, ct, model: [_image(p / "flat.nii.gz", np.zeros((4, 5, 6), np.int16)), "--model", model],
    "no model": lambda p, ct, model: [ct, "--model", p],
    "missing fold": lambda p, ct, model: [ct, "--model", model, "--folds", "4"],
    "no record": lambda p, ct, model: [ct, "--model", model, "--calibration", p / "no.json"],
    "damaged record": lambda p, ct, model: [ct, "--model", model, "--calibration", _file(p / "r.json", b"{")],
}


def _file(path, content):
    path.write_bytes(content)
    return path


def _image(path, array, is_vector=False):
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=is_vector), str(path))
    return path


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_ends_with_one_clear_line_and_leaves_nothing(kind, ct, model, tmp_path, capfd):
    arguments = [str(item) for item in BAD[kind](tmp_path, ct, model)]
    code = main(["segment", *arguments, "--out", str(tmp_path / "out"), "--quiet"])
    said = capfd.readouterr()
    assert code == 1
    assert said.out == ""
    assert "Traceback" not in said.err
    ours = [line for line in said.err.splitlines() if line.startswith("calib-uncertainty: ")]
    assert len(ours) == 1
    assert not (tmp_path / "out").exists()
    assert list(tmp_path.glob(".*")) == []


def test_debug_shows_the_traceback(model, tmp_path, capfd):
    assert main(["segment", str(tmp_path / "no"), "--model", str(model), "--out", str(tmp_path / "out"), "--debug", "--quiet"]) == 1
    assert "Traceback" in capfd.readouterr().err


def test_an_unforeseen_failure_is_one_line_too(model, ct, tmp_path, capfd, monkeypatch):
    from CalibUncertaintyLib.inference.members import MemberPredictor

    def fail(*_):
        raise ZeroDivisionError("first line\nsecond line")

    monkeypatch.setattr(MemberPredictor, "prepare", fail)
    assert main(["segment", str(ct), "--model", str(model), "--out", str(tmp_path / "out"), "--quiet"]) == 1
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("calib-uncertainty: ")]
    assert "ZeroDivisionError: first line second line" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
def test_stopping_ends_cleanly_and_leaves_nothing(which, model, tmp_path):
    ct = write_ct(tmp_path / "large.nii.gz", shape=(90, 120, 120))
    folder = tmp_path / "place"
    folder.mkdir()
    process = subprocess.Popen(
        [*COMMAND, "segment", str(ct), "--model", str(model), "--out", str(folder / "out"), "--progress", "json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # a suite started in the background has Ctrl-C switched off, and its children inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    for line in process.stdout:
        if "tile 2 of" in line:
            break
    began = time.monotonic()
    os.kill(process.pid, which)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert time.monotonic() - began < 20
    assert json.loads(out.splitlines()[-1]) == {"type": "error", "message": "stopped on request; nothing was written"}
    assert "Traceback" not in err
    assert list(folder.iterdir()) == []


def test_wrong_usage_ends_with_two(capfd):
    with pytest.raises(SystemExit) as end:
        main(["segment"])
    assert end.value.code == 2


def test_info_says_what_is_in_a_model_and_whether_it_is_calibrated(model, capsys):
    assert main(["info", str(model)]) == 0
    said = capsys.readouterr().out
    for word in ("Dataset999_Tiny", "Liver", "Folds: 0, 1", "NOT CALIBRATED"):
        assert word in said


def test_the_terminal_and_python_have_the_same_defaults():
    from CalibUncertaintyLib.cli import parser
    from CalibUncertaintyLib.workflow.options import SegmentOptions

    parsed = vars(parser().parse_args(["segment", "ct", "--model", "m", "--out", "o"]))
    defaults = SegmentOptions()
    different = {name for name in SegmentOptions.names() if parsed.get(name, ()) != getattr(defaults, name)}
    assert different <= {"export"}  # an empty list there, an empty tuple here
    assert list(parsed["export"]) == list(defaults.export)


MEMBERS = ["--folds", "0", "--flips", "members", "--dropout", "2", "--seed", "3", "--insert-dropout", "0.2"]


def test_every_kind_of_member_can_be_asked_for_from_the_terminal(model, ct, tmp_path):
    assert main(["segment", str(ct), "--model", str(model), "--out", str(tmp_path / "out"), "--quiet", *MEMBERS]) == 0
    members = Result.open(tmp_path / "out").provenance["members"]
    assert len(members) == 8 * 2
    assert {(member["fold"], member["sample"]) for member in members} == {(0, 0), (0, 1)}
    assert len({tuple(member["flip"]) for member in members}) == 8


def test_a_request_takes_lists_and_the_same_members(model, ct, tmp_path):
    other = write_model(tmp_path / "other", plans(), seed=30)
    arguments = {
        "ct": [str(ct)], "model": [str(model), str(other)], "out": str(tmp_path / "out"), "folds": [0], "flips": "off",
        "checkpoints": ["checkpoint_final.pth"], "dropout": 0, "seed": 0, "insert_dropout": None, "precision": "stock",
        "trainers": None, "previous": None,
    }  # fmt: skip
    (tmp_path / "request.json").write_text(json.dumps({"verb": "segment", "arguments": arguments}))
    assert main(["run", str(tmp_path / "request.json"), "--quiet"]) == 0
    assert [m["model"] for m in Result.open(tmp_path / "out").provenance["members"]] == [0, 1]


def test_info_tells_members_and_what_is_stored(model, capsys):
    assert main(["info", str(model), *MEMBERS]) == 0
    said = capsys.readouterr().out
    assert "Members: fold 0, each flip a member, 2 dropout samples (seed 3, inserted with rate 0.2); 1 set of weights" in said
    assert main(["info", str(model), "--checkpoints", "checkpoint_cycle*"]) == 1
    assert "has no checkpoint checkpoint_cycle*" in capsys.readouterr().err
    assert main(["info", str(model), str(model)]) == 1
    assert "is listed twice" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--dropout", "-1"], "dropout (samples) must be a whole number from 0 up, got -1"),
        (["--insert-dropout", "0.5"], "does nothing without dropout samples"),
        (["--flips", "members", "--no-mirroring"], "contradict each other"),
        (["--trainers", "nowhere"], "nowhere is not a folder"),
    ],
)
def test_members_that_make_no_sense_are_one_line(arguments, said, model, ct, tmp_path, capsys):
    assert main(["segment", str(ct), "--model", str(model), "--out", str(tmp_path / "out"), "--quiet", *arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_quiet_hides_the_bar_and_nothing_else(model, ct, tmp_path):
    done = run("segment", ct, "--model", model, "--out", tmp_path / "out", "--folds", "0", "--no-mirroring", "--quiet")
    assert "Warning: The probabilities are NOT CALIBRATED" in done.stderr
    assert not re.search(r"^[ [#.]*\d+%", done.stderr, re.MULTILINE)


def test_an_answer_that_nobody_reads_is_no_traceback(tmp_path):
    command = " ".join([*COMMAND, "info", str(tmp_path / "no")])
    done = subprocess.run(["bash", "-c", f"{command} >&-"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_a_fold_that_is_no_number_is_wrong_usage(model, ct, capfd):
    with pytest.raises(SystemExit) as end:
        main(["segment", str(ct), "--model", str(model), "--out", "x", "--folds", "²"])
    assert end.value.code == 2
