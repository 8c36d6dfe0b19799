"""The labelled cases that are chosen to calibrate or to evaluate with: whether they can be such."""

from pathlib import Path

from slicer.i18n import tr as _

from .parameterNode import CalibrationMethod, isChosen

LISTS = (".csv", ".tsv", ".txt", ".json")
DATASET = ("dataset.json", "imagesTr", "labelsTr")


def casesProblem(path, method=None):
    """Why this cannot be a source of labelled cases, or an empty string. Looks at names only; the computation reads the files.

    :param path: a list of cases, or the folder of a raw nnU-Net dataset.
    :param method: the chosen `CalibrationMethod` where a dataset will do; None where only a list will.
    :return: one sentence for the user.
    """
    orDataset = method is not None
    if not isChosen(path):
        if orDataset:
            return _("Choose the labelled cases: a CSV or JSON list, or the folder of a raw nnU-Net dataset.")
        return _("Choose the labelled test cases: a CSV or JSON list (id, ct, labels).")
    path = Path(path)
    if orDataset and path.is_dir():
        return _datasetProblem(path, method)
    if not path.is_file():
        return _("{path} does not exist or is no file. Choose the labelled cases again.").format(path=path)
    if path.suffix.lower() not in LISTS:
        text = (
            _("{name} is no list of cases. Choose a CSV file (id, ct, labels) or JSON, or the folder of a dataset.")
            if orDataset
            else _("{name} is no list of cases. Choose a CSV file (id, ct, labels) or JSON.")
        )
        return text.format(name=path.name)
    return ""


def _datasetProblem(path, method):
    missing = [name for name in DATASET if not (path / name).exists()]
    if missing:
        text = _("{path} is not a raw nnU-Net dataset: there is no {missing} in it. Choose its folder Dataset###_Name, or a "
                 "CSV or JSON list of cases.")  # fmt: skip
        return text.format(path=path, missing=missing[0])
    if method is not CalibrationMethod.TEMPERATURE:
        return _("Of a dataset's folds only temperatures can be fitted: choose Temperature scaling, or a list of cases.")
    return ""
