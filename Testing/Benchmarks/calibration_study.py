"""What every way of calibrating does to a real model: fit on the calibration split, report on the test split.

    python Testing/Benchmarks/calibration_study.py --data DATA --group okbp --model MODEL --out FILE.json [--folds 0]

All candidates (temperature in every mode, the other methods on stock's pool) are fitted at once within 15 mm of prediction or
reference on the calibration cases; figures on the test cases within 15 mm and over the whole CT (what nnU-Net crops away as
empty left out). Nothing is chosen by looking at the test split; the choice that `--mode auto --method auto` would make is the
cross-validation's over the calibration cases, and is marked.
"""

import json
import tempfile
from pathlib import Path

from temperature_study import about, cases_of, member_options, study_parser

from CalibUncertaintyLib.evaluation.statistics import paired_difference, wilcoxon_signed_rank
from CalibUncertaintyLib.inference.members import MemberPredictor
from CalibUncertaintyLib.inference.scratch import Scratch
from CalibUncertaintyLib.plain_json import plain
from CalibUncertaintyLib.progress import TerminalProgress
from CalibUncertaintyLib.workflow.applied import AppliedCalibration
from CalibUncertaintyLib.workflow.candidates import Reference, fit_candidates
from CalibUncertaintyLib.workflow.compare import candidates_of, compare
from CalibUncertaintyLib.workflow.fit import figures
from CalibUncertaintyLib.workflow.labelled import collect, refuse_doubtful_cases
from CalibUncertaintyLib.workflow.options import MemberOptions

ROI_MM = 15.0
KEYS = ("nll", "brier_sum", "ece_toplabel", "ece_class", "signed_gap", "dice")


def main() -> None:
    chosen = study_parser(__doc__).parse_args()
    members = MemberOptions(**member_options(chosen)).members_of(chosen.model)
    progress = TerminalProgress()
    predictor = MemberPredictor(members)
    members, model = predictor.chosen, predictor.chosen.models[0]
    reference = Reference.of(model)
    candidates = candidates_of("all", "temperature", len(predictor.members), reference.heads.sigmoid)
    candidates += [c for c in candidates_of("auto", "auto", len(predictor.members), False) if c.method != "temperature"]
    with tempfile.TemporaryDirectory() as folder, Scratch(Path(folder)) as kept:

        def collected(split: str, whole: bool) -> list:
            cases, found = cases_of(chosen.data, chosen.group, split), []
            refuse_doubtful_cases(cases, members, progress)
            for number, case in enumerate(cases):
                stage = progress.stage(split, number / len(cases), (number + 1) / len(cases), case.id)
                with stage, Scratch(Path(folder)) as passing:
                    found.append(collect(case, model, predictor, ROI_MM, passing, kept, progress, whole=whole))
            return found

        calibration = collected("calibration", whole=False)
        fitted = fit_candidates(calibration, candidates, reference, bootstrap=1000)
        rows = compare(calibration, candidates, reference, progress)
        test = collected("test", whole=True)
        domains = {"roi_15_mm": [voxels.of_roi() for voxels in test], "whole_ct": test}
        answers = []
        for candidate, found in fitted.items():
            before = AppliedCalibration(candidate.mode, heads=reference.heads)
            of_domains = {
                name: {"before": figures(voxels, before, reference), "after": figures(voxels, found.applied, reference)}
                for name, voxels in domains.items()
            }
            answers.append(
                {
                    "mode": candidate.mode, "method": candidate.method, "status": found.status, "interval": found.interval,
                    "temperature": found.applied.temperature if candidate.method == "temperature" else None,
                    "member_temperatures": found.applied.member_temperatures, "domains": of_domains,
                    "tests": {key: tests_of(of_domains["roi_15_mm"], key) for key in ("nll", "ece_toplabel")},
                    **next(row for row in rows if (row["mode"], row["method"]) == (candidate.mode, candidate.method)),
                }
            )  # fmt: skip
    content = about(chosen, predictor) | {
        "calibration_cases": [voxels.case.id for voxels in calibration],
        "test_cases": [voxels.case.id for voxels in test],
        "ways": answers,
    }
    chosen.out.write_text(json.dumps(plain(content), indent=1) + "\n", encoding="utf-8")
    print(table(answers))


def tests_of(of_domain: dict, key: str) -> dict:
    """Paired difference over the test cases, after less before, with its interval, and Wilcoxon's p."""
    before, after = ([case[key] for case in of_domain[when]["cases"].values()] for when in ("before", "after"))
    return {
        "difference": paired_difference(before, after).to_json(),
        "wilcoxon": wilcoxon_signed_rank(before, after).to_json(),
    }


def table(answers: list[dict]) -> str:
    """Markdown: mean over test cases, before -> after."""
    lines = [
        "| way | domain | NLL | Brier | ECE | class ECE | Dice | labels unlike stock's | NLL held out |",
        "|---" * 9 + "|",
    ]
    for answer in answers:
        for name, domain in answer["domains"].items():
            means = [
                f"{domain['before']['per_case'][key]:.4f} → {domain['after']['per_case'][key]:.4f}"
                if key in domain["before"]["per_case"]
                else ""
                for key in ("nll", "brier_sum", "ece_toplabel", "ece_class", "dice")
            ]
            way = f"{answer['method']}, {answer['mode']}" + (" (chosen)" if answer["chosen"] else "")
            unlike = f"{domain['after']['differs_from_stock']:,}"
            lines.append(f"| {way} | {name} | {' | '.join(means)} | {unlike} | {answer['nll_cv']:.4f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
