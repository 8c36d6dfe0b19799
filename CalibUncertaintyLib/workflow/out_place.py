"""Where nothing may be written: inside a trained model's folder."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import CalibUncertaintyError


def refuse_inside_model(out: Path) -> None:
    """Refuse an output folder below the folder of a trained model, whichever model that is; nothing is made.

    A model folder is copied, exported and searched for `fold_*` as a whole: a Result in it, which is a patient's, would travel with
    the model. Only what is about the model itself belongs there: its calibration record, and the proof of that.
    Raises CalibUncertaintyError in one line that names both.
    """
    for folder in Path(os.path.realpath(out)).parents:  # a link leads into the model as well
        if os.path.isfile(folder / "plans.json") and any(folder.glob("fold_*/*.pth")):
            raise CalibUncertaintyError(
                f"{out} lies inside the trained model {folder}, which is only read; choose another --out"
            )
