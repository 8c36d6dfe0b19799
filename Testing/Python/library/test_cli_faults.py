"""What a user may type or have on the disk that nobody means: one line, exit code 1 or 2, and nothing left."""

import errno
import json
import os

import pytest

from CalibUncertaintyLib.cli import main
from CalibUncertaintyLib.errors import CalibUncertaintyError, Cancelled
from CalibUncertaintyLib.progress import Progress
from CalibUncertaintyLib.volume import Volume
from CalibUncertaintyLib.workflow.record_file import locked
from CalibUncertaintyLib.workflow.writing import written_aside


def said(arguments, capfd):
    """Exit code, and what stands on the terminal."""
    code = main([*map(str, arguments), "--quiet"])
    return code, capfd.readouterr().err


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--dropout", "100000000", "--insert-dropout", "0.1"], "10,000 at most"),
        (["--threshold", "1e300"], "threshold must be"),
    ],
)
def test_a_number_that_is_out_of_all_proportion_is_one_line(options, named, model, ct, tmp_path, capfd):
    code, text = said(["segment", ct, "--model", model, "--out", tmp_path / "out", *options], capfd)
    assert code == 1
    assert named in text
    assert len(text.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "named"),
    [(["--folds", "9" * 5000], "give fold numbers"), (["--threshold", "Stored"], "give a number, or stored")],
)
def test_a_value_of_the_wrong_kind_is_wrong_usage_in_plain_words(options, named, model, ct, tmp_path, capfd):
    with pytest.raises(SystemExit) as ended:
        main(["segment", str(ct), "--model", str(model), "--out", str(tmp_path / "out"), *options])
    assert ended.value.code == 2
    assert named in capfd.readouterr().err


def test_a_line_break_in_a_name_leaves_the_message_one_line(model, tmp_path, capfd):
    (tmp_path / "a\nb.nii.gz").write_bytes(b"nothing")
    code, text = said(["segment", tmp_path / "a\nb.nii.gz", "--model", model, "--out", tmp_path / "out"], capfd)
    assert code == 1
    assert len(text.splitlines()) == 1
    assert "a\\nb.nii.gz" in text


def test_what_the_system_refuses_names_the_file_and_is_no_internal_error(model, ct, tmp_path, capfd, monkeypatch):
    from CalibUncertaintyLib.inference.members import MemberPredictor

    def fail(*_):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), "weights.pth")

    monkeypatch.setattr(MemberPredictor, "__init__", fail)
    code, text = said(["segment", ct, "--model", model, "--out", tmp_path / "out"], capfd)
    assert code == 1
    assert text.splitlines()[-1].startswith("calib-uncertainty: weights.pth cannot be used (")
    assert "unforeseen" not in text


@pytest.mark.skipif(os.name != "posix", reason="other systems have no such names")
@pytest.mark.parametrize("name", ["n" * 260, os.fsdecode(b"out\xff")])
def test_an_output_folder_that_cannot_be_is_refused_before_the_computing(name, model, ct, tmp_path, capfd):
    code, text = said(["segment", ct, "--model", model, "--out", tmp_path / name], capfd)
    assert code == 1
    assert len(text.splitlines()) == 1
    assert "partial" not in text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", ["segment", "evaluate", "last-layer"])
@pytest.mark.parametrize("inside", ["result", "fold_7", "fold_0/deep/result"])
def test_nothing_is_written_into_a_model_folder(verb, inside, model, ct, cases, tmp_path, capfd):
    given = [ct] if verb == "segment" else ["--cases", cases]
    before = {path: path.stat().st_mtime_ns for path in model.rglob("*")}
    link = tmp_path / "link"
    link.symlink_to(model, target_is_directory=True)
    for out in (model / inside, link / inside):
        code, text = said([verb, *given, "--model", model, "--out", out], capfd)
        assert code == 1
        assert text.splitlines()[-1].endswith(
            f"{out} lies inside the trained model {model}, which is only read; choose another --out"
        )
    assert {path: path.stat().st_mtime_ns for path in model.rglob("*")} == before


def test_a_folder_with_plans_and_no_weights_is_no_model(model, ct, tmp_path, capfd):
    (tmp_path / "plans.json").write_text("{}")
    code, _ = said(["segment", ct, "--model", model, "--out", tmp_path / "out", "--folds", "0"], capfd)
    assert code == 0
    assert (tmp_path / "out" / "result.json").is_file()


DEEP = "[" * 100_000


@pytest.mark.parametrize("verb", ["record", "cases", "configurations", "request", "result", "dataset.json"])
def test_json_that_is_nested_too_deeply_is_named_and_no_internal_error(verb, model, ct, tmp_path, capfd):
    import shutil

    path = tmp_path / "deep.json"
    path.write_text(DEEP)
    (tmp_path / "result.json").write_text(DEEP)
    named = tmp_path / "result.json" if verb == "result" else path
    if verb == "dataset.json":
        copied = shutil.copytree(model, tmp_path / "model")
        named = copied / "dataset.json"
        named.write_text(DEEP)
    code = main(
        {
            "record": ["segment", str(ct), "--model", str(model), "--calibration", str(path), "--out", str(tmp_path / "o")],
            "cases": ["calibrate", "--model", str(model), "--cases", str(path)],
            "configurations": [
                "evaluate", "--cases", str(path), "--configurations", str(path), "--model", str(model), "--out", str(tmp_path / "o")
            ],
            "request": ["run", str(path)],
            "result": ["picture", str(tmp_path), "--ct", str(ct)],
            "dataset.json": ["info", str(tmp_path / "model")],
        }[verb]
    )  # fmt: skip
    text = capfd.readouterr().err
    assert code == 1
    assert str(named) in text
    assert "unforeseen" not in text
    assert not (tmp_path / "o").exists()


@pytest.fixture
def cases(ct, tmp_path):
    volume = Volume.read(ct)
    volume.with_array((volume.array > 0).astype("uint8")).write(tmp_path / "labels.nii.gz")
    (tmp_path / "cases.csv").write_text(f"id,ct,labels\nP1,{ct},labels.nii.gz\n")
    return tmp_path / "cases.csv"


@pytest.mark.skipif(os.name != "posix", reason="other systems have no /proc")
@pytest.mark.parametrize("proof", ["file", "file/below", "/proc/nowhere"])
def test_a_proof_that_could_not_be_written_is_refused_before_the_computing(proof, model, cases, tmp_path, capfd):
    (tmp_path / "file").write_text("mine")
    arguments = ["calibrate", "--model", model, "--cases", cases, "--out", tmp_path / "record.json"]
    code, text = said([*arguments, "--proof", tmp_path / proof], capfd)
    assert code == 1
    assert "the proof cannot be written to" in text
    assert not (tmp_path / "record.json").exists()
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"


def test_a_second_evaluation_into_one_folder_is_refused_while_the_first_one_runs(model, cases, tmp_path, capfd):
    arguments = ["evaluate", "--model", model, "--cases", cases, "--out", tmp_path / "new" / "out", "--flips", "off"]
    (tmp_path / "new").mkdir()
    with locked(tmp_path / "new" / "out", Progress()):
        code, text = said(arguments, capfd)
    assert code == 1
    assert "is being written by another run" in text
    assert "choose another --out" in text
    assert list((tmp_path / "new").iterdir()) == []


def test_what_goes_wrong_aside_is_said_of_the_folder_that_was_asked_for(tmp_path):
    with pytest.raises(CalibUncertaintyError) as refusal, written_aside(tmp_path / "out", False) as aside:
        raise CalibUncertaintyError(f"{aside / 'maps' / 'a.nrrd'} was not written whole")
    assert str(refusal.value) == f"{tmp_path / 'out' / 'maps' / 'a.nrrd'} was not written whole"
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(Cancelled), written_aside(tmp_path / "out", False):
        raise Cancelled("stopped")


@pytest.mark.parametrize("verb", ["evaluate", "calibrate"])
def test_a_list_of_cases_is_not_replaced_by_the_table_of_the_same_name(verb, model, cases, tmp_path, capfd):
    study = tmp_path / "study"
    study.mkdir()
    cases = cases.rename(study / "cases.csv")
    cases.write_text(cases.read_text(encoding="utf-8").replace("labels.nii.gz", "../labels.nii.gz"))
    listed = cases.read_bytes()
    options = ["--out", study] if verb == "evaluate" else ["--out", tmp_path / "record.json", "--proof", study]
    code, text = said([verb, "--model", model, "--cases", cases, *options], capfd)
    assert code == 1
    assert "cases.csv" in text
    assert "choose another" in text
    assert [path.name for path in study.iterdir()] == ["cases.csv"]
    assert cases.read_bytes() == listed
    assert not (tmp_path / "record.json").exists()


@pytest.mark.parametrize(
    ("verb", "wrong", "named"),
    [
        ("calibrate", {"excluded": 5}, "excluded must be a list of names"),
        ("calibrate", {"npz": "folder"}, "npz must be a list of names"),
        ("calibrate", {"method": ["platt"]}, "the method must be one name"),
        ("evaluate", {"measures": 5}, "measures must be standard, all, or a list of names"),
    ],
)
def test_a_request_with_a_value_of_the_wrong_kind_is_one_line(verb, wrong, named, model, cases, tmp_path, capfd):
    arguments = {"model": str(model), "cases": str(cases), "out": str(tmp_path / "out")} | wrong
    (tmp_path / "request.json").write_text(json.dumps({"verb": verb, "arguments": arguments}))
    code, text = said(["run", tmp_path / "request.json"], capfd)
    assert code == 1
    assert named in text
    assert "unforeseen" not in text
    assert not (tmp_path / "out").exists()
