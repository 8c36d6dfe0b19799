"""What calibration is stored with a model, and whether it holds for the chosen folds and flips. It hashes every checkpoint, so
a thread asks. Knows neither Qt nor the scene."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from slicer.i18n import tr as _


@dataclass(frozen=True)
class CalibrationState:
    """The stored calibration in words.

    holds: it would be applied to these members. verdict: one sentence that says so, or why not. text: all that `check` says.
    parameters, cases, made, nll, ece: of the entry that holds, else empty; nll (nats) and ece (0..1) are (before, after), means
    over its cases, or None. title: model, members and mode, for a diagram. figures: of the entry, {"before", "after"}.
    otherWays: where nothing holds, the ways of putting these members together that a stored calibration would hold for.
    report: what `check` found, a `CheckReport`, or None where it could not look.
    """

    holds: bool
    verdict: str
    text: str = ""
    title: str = ""
    parameters: str = ""
    cases: int = 0
    made: str = ""
    nll: tuple = None
    ece: tuple = None
    warnings: tuple = ()
    otherWays: tuple = ()
    figures: dict = field(default_factory=dict, repr=False)
    report: object = field(default=None, repr=False)


def readState(modelFolder, folds, pooling, mirroring):
    """Look at the record beside a model.

    :param modelFolder: the folder with plans.json.
    :param folds: "all" or a list.
    :param pooling: how the members are put together, as a request has it.
    :param mirroring: whether each member is averaged over flips.
    :return: `CalibrationState`; whatever is wrong with the model or the record becomes its verdict.
    """
    from CalibUncertaintyLib import CalibUncertaintyError
    from CalibUncertaintyLib.model.folder import ModelFolder
    from CalibUncertaintyLib.model.member_set import MemberSet
    from CalibUncertaintyLib.workflow.check import check_model

    try:
        model = ModelFolder.open(modelFolder)
        members = MemberSet.choose(model, model.select_folds(folds), flips="mean" if mirroring else "off")
        report = check_model(members, pooling)
        title = f"{model.name}, {members.describe()}, {pooling}"
        state = _stateOf(report, title)
        return state if state.holds else replace(state, otherWays=_otherWays(members, pooling))
    except CalibUncertaintyError as error:
        return CalibrationState(False, str(error), str(error))
    except Exception as error:  # whatever odd files hold, the user gets a sentence
        logging.exception("CalibUncertainty: the calibration of %s cannot be looked at", modelFolder)
        text = _("The calibration of {folder} cannot be looked at ({error!r})").format(folder=modelFolder, error=error)
        return CalibrationState(False, text, text)


def _otherWays(members, pooling):
    from CalibUncertaintyLib.model.record import find_calibration
    from CalibUncertaintyLib.model.record_match import PRECISION, STEP_SIZE, computing
    from CalibUncertaintyLib.workflow.applied import MODES

    fingerprint, path = members.fingerprint() | computing(STEP_SIZE, PRECISION), members.models[0].record_path
    others = (mode for mode in MODES if mode != pooling)
    return tuple(mode for mode in others if find_calibration(path, fingerprint, mode, members.mirroring)[0] is not None)


def _stateOf(report, title):
    from CalibUncertaintyLib.model.record import CalibrationRecord
    from CalibUncertaintyLib.workflow.info import temperature_in_words

    text = "\n".join(report.lines())
    if not report.ok or report.chosen is None:
        return CalibrationState(False, report.verdict, text, title, warnings=report.warnings, report=report)
    entry = CalibrationRecord.read(report.record).entries[report.chosen]
    return CalibrationState(
        holds=True,
        verdict=report.verdict,
        text=text,
        title=title,
        parameters=temperature_in_words(entry),
        cases=len(entry.cases),
        made=str(entry.created)[:10],
        nll=beforeAndAfter(entry.figures, "nll"),
        ece=beforeAndAfter(entry.figures, "ece_toplabel"),
        warnings=(*report.warnings, *report.entries[report.chosen].warnings),
        figures={when: entry.figures.get(when) or {} for when in ("before", "after")},
        report=report,
    )


def beforeAndAfter(figures, key):
    """One figure before and after calibration, mean over the cases.

    :return: (before, after), or None where either is not stored.
    """
    values = []
    for when in ("before", "after"):
        means = (figures.get(when) or {}).get("per_case")
        value = means.get(key) if isinstance(means, Mapping) else None
        if not isinstance(value, (int, float)):
            return None
        values.append(float(value))
    return tuple(values)
