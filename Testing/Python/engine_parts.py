"""What the engine's tests share: members of a tiny model, their logits one by one, and stock nnU-Net's."""

from __future__ import annotations

import numpy as np
import torch
from tiny_model import plans, write_ct

from CalibUncertaintyLib.inference.frame import Frame
from CalibUncertaintyLib.inference.members import Member, MemberPredictor, Prepared
from CalibUncertaintyLib.inference.prepare import PreparedCase
from CalibUncertaintyLib.inference.resampling import GridReturn
from CalibUncertaintyLib.model.member_set import MemberSet
from CalibUncertaintyLib.progress import Progress
from CalibUncertaintyLib.volume import Volume


class Heard(Progress):
    """Keeps the warnings."""

    def __init__(self):
        super().__init__()
        self.warnings = []

    def warn(self, message):
        self.warnings.append(message)


def few_slices(path, shape, spacing=(1.5, 1.5, 2.0), seed=0) -> Volume:
    """As `tiny_model.write_ct`, of fewer slices than its smoothing and a file may have, too."""
    whole = Volume.read(write_ct(path, (max(shape[0], 8), *shape[1:]), spacing, seed=seed))
    return whole.crop((2 if shape[0] < 6 else 0, 0, 0), shape)


def predictor_of(model, step_size=0.5, trainers=None, **of_set) -> MemberPredictor:
    """Members on the CPU; of_set: as `MemberSet.choose` takes it."""
    return MemberPredictor(MemberSet.choose(model, **of_set), "cpu", step_size, trainers=trainers)


def prepared(predictor, ct):
    """The case of one CT, a file or a volume."""
    return predictor.prepare([ct if isinstance(ct, Volume) else Volume.read(ct)])


def whole_logits(planes) -> torch.Tensor:
    """(C, grid) float16 of what the sliding window hands on."""
    return torch.cat([part.cpu() for _, part in planes]).permute(1, 0, 2, 3).contiguous()


def member_logits(predictor, case, progress=None) -> list[torch.Tensor]:
    """Every member's logits on its own network's grid."""
    return [whole_logits(planes) for _, planes in predictor.predict(case, progress or Progress())]


def stock_logits(model, data, folds=(0,), mirroring=False, step_size=0.5, checkpoint="checkpoint_final.pth") -> torch.Tensor:
    """(C, grid) float16 of stock nnU-Net's predictor for preprocessed data (channels, grid)."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    stock = nnUNetPredictor(
        tile_step_size=step_size, use_mirroring=mirroring, device=torch.device("cpu"), perform_everything_on_device=False,
        allow_tqdm=False,
    )  # fmt: skip
    stock.initialize_from_trained_model_folder(str(model), tuple(folds), checkpoint)
    return stock.predict_logits_from_preprocessed_data(data).clone()


def on_ct_grid(predictor, case, logits, model=0) -> np.ndarray:
    """Logits (C, grid) on the cropped CT grid, by the very function that stock nnU-Net takes from the plans; float16."""
    settings, prepared_case = predictor._models[model].configuration, case.cases[model]
    target = list(settings.spacing)
    grid_spacing = target if len(target) == 3 else [prepared_case.spacing[0], *target]
    return np.asarray(
        settings.resampling_fn_probabilities(logits, prepared_case.grid.ct_shape, grid_spacing, list(prepared_case.spacing)),
        dtype=np.float16,
    )


class Told:
    """Stands in for a `MemberPredictor`: members that say what they are told, logits (C, grid) each, in portions of planes."""

    adds_as_stock = True

    def __init__(self, logits, heads, portion=5):
        self.members = [Member(i, 0, 0, "checkpoint_final.pth", None, None, False) for i in range(len(logits))]
        self.heads, self.n_classes = heads, heads.channels
        self._logits, self._portion = [torch.as_tensor(of_member).half() for of_member in logits], portion

    def predict(self, case, progress):
        for member, logits in zip(self.members, self._logits, strict=True):
            planes = logits.permute(1, 0, 2, 3)
            yield member, ((first, planes[first : first + self._portion]) for first in range(0, len(planes), self._portion))


def told_case(grid_shape, ct_shape=None, spacing=(2.0, 1.5, 1.5), margin=0, **of_plans) -> Prepared:
    """A case whose network's grid is given, and the CT's with `margin` voxels around it; spacing: of the CT, mm."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    settings = PlansManager(plans(**of_plans)).get_configuration("3d_fullres")
    ct_shape = tuple(ct_shape or grid_shape)
    grid = GridReturn(settings, grid_shape, ct_shape, list(settings.spacing), list(spacing))
    full = tuple(n + 2 * margin for n in ct_shape)
    data = torch.zeros(1, *grid_shape)
    return Prepared((PreparedCase(data, Frame((0, 1, 2)), full, (margin,) * 3, grid, tuple(spacing)),))
