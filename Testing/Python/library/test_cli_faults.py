"""What a user may type or have on the disk that nobody means: one line, exit code 1 or 2, and nothing left."""

import errno
import os

import pytest
from tiny_model import plans, write_ct, write_model

from CalibUncertaintyLib.cli import main


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"), plans())


@pytest.fixture(scope="module")
def ct(tmp_path_factory):
    return write_ct(tmp_path_factory.mktemp("ct") / "ct.nii.gz")


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
