"""What is in a model folder, in plain words. The check of the calibration hashes every checkpoint, so a thread does it."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path

from slicer.i18n import tr as _


@dataclass(frozen=True)
class ModelSummary:
    """What the panel says about a model folder.

    problem: why it cannot be run, or "". calibrated: None as long as it is being checked. calibrationText: one line, as the
    result will say it.
    """

    folder: Path
    problem: str = ""
    name: str = ""
    configuration: str = ""
    structures: tuple = ()
    folds: tuple = ()
    calibrated: bool = None
    calibrationText: str = ""


def readModel(folder):
    """Read names, structures and folds; quick.

    :param folder: what the user chose.
    :return: `ModelSummary`, with `problem` set where the folder is not a model that can be run.
    """
    from CalibUncertaintyLib import CalibUncertaintyError
    from CalibUncertaintyLib.model.folder import ModelFolder

    try:
        model = ModelFolder.open(folder)
        model.refuse_unsupported()
        return ModelSummary(
            folder=model.path,
            name=model.name,
            configuration=model.configuration,
            structures=tuple(model.labels.values()),
            folds=tuple(model.folds),
        )
    except CalibUncertaintyError as error:
        return ModelSummary(Path(folder), problem=str(error))
    except Exception as error:  # whatever odd files hold, the user gets a sentence
        logging.exception("CalibUncertainty: %s cannot be read as a model", folder)
        return ModelSummary(
            Path(folder),
            problem=_("{folder} cannot be read as an nnU-Net v2 model ({error!r}); copy it again").format(
                folder=folder, error=error
            ),
        )


def goneProblem(folder):
    """Why a model that was chosen a while ago cannot be used any more, or an empty string: a network drive may have gone.

    :param folder: the folder with plans.json.
    """
    if Path(folder).is_dir():
        return ""
    return _("The model folder {folder} is not there any more. Connect its network drive again, or choose another model.").format(
        folder=folder
    )  # fmt: skip


def checkCalibration(summary, folds, pooling, mirroring, calibration):
    """Find out which calibration a run with these choices would apply. Takes seconds for large checkpoints.

    :param folds: "all" or a list.
    :param pooling: pool_logit or pool_prob.
    :param calibration: auto or none.
    :return: the summary with `calibrated` and `calibrationText`.
    """
    from CalibUncertaintyLib import CalibUncertaintyError
    from CalibUncertaintyLib.model.folder import ModelFolder
    from CalibUncertaintyLib.workflow.applied import choose_calibration

    try:
        model = ModelFolder.open(summary.folder)
        selected = model.select_folds(folds)
        applied = choose_calibration(model, selected, mirroring, pooling, calibration)
    except Exception as error:  # in a thread nobody else would hear of it
        if not isinstance(error, CalibUncertaintyError):
            logging.exception("CalibUncertainty: the calibration of %s cannot be checked", summary.folder)
        text = _("NOT CALIBRATED: {error}").format(error=error)
        return replace(summary, problem=str(error), calibrated=False, calibrationText=text)
    return replace(summary, calibrated=applied.calibrated, calibrationText=applied.summary(selected))
