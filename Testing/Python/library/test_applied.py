"""What is said of an applied calibration: in the words of the documents, without names of options."""

import pytest

from CalibUncertaintyLib.model.record_check import MODES
from CalibUncertaintyLib.workflow.applied import AppliedCalibration

SAID = {
    "pool_logit": "Calibrated: temperature 2.00 (folds 0 and 1, logits averaged)",
    "pool_prob": "Calibrated: temperature 2.00 (folds 0 and 1, probabilities averaged)",
    "shared": "Calibrated: temperature 2.00 (folds 0 and 1, all calibrated alike, then averaged)",
    "member": "Calibrated: temperatures of the members 2.00; 2.50 (folds 0 and 1, each calibrated, then averaged)",
}


@pytest.mark.parametrize("mode", MODES)
def test_the_summary_says_in_words_how_members_become_one_answer(mode):
    applied = AppliedCalibration(mode, 2.0, 2.0, True, member_temperatures=(2.0, 2.5))
    assert applied.summary([0, 1]) == SAID[mode]
