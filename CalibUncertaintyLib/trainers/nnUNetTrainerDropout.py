"""nnU-Net trainers with dropout in the network, for Monte Carlo dropout at inference.

Positions after Rousseau et al., "Post training uncertainty calibration of deep networks for medical image segmentation"
(ISBI 2021):
    nnUNet_extTrainer=FOLDER nnUNetv2_train DATASET 3d_fullres 0 -tr nnUNetTrainerDropout         # their "decoder"
    nnUNet_extTrainer=FOLDER nnUNetv2_train DATASET 3d_fullres 0 -tr nnUNetTrainerDropoutCenter   # their "center"
Checkpoints fit the plain network of the plans: dropout has no weights and does not rename any.
"""

import sys
from pathlib import Path

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

try:
    from CalibUncertaintyLib.model.dropout import add_dropout
except ModuleNotFoundError:
    # This folder was named from a checkout that is not installed in nnU-Net's Python: the library lies around it.
    sys.path.append(str(Path(__file__).resolve().parents[2]))
    try:
        from CalibUncertaintyLib.model.dropout import add_dropout
    except ModuleNotFoundError as error:
        raise ImportError(
            f"{__file__} needs the library it came with: leave it there and name its folder, or pip install calib-uncertainty"
        ) from error


class nnUNetTrainerDropout(nnUNetTrainer):  # noqa: N801 (nnU-Net's way of naming)
    """Dropout before every block of the decoder and before the output."""

    dropout_where = "decoder"
    """"decoder" or "center"."""
    dropout_rate = 0.5
    """Probability that a value is dropped in training: Rousseau's (and Mehrtash's) 0.5."""

    @classmethod
    def build_network_architecture(
        cls, plans_manager, configuration_manager, num_input_channels, num_output_channels, enable_deep_supervision=True
    ):
        """The network of the plans, with dropout in it; nnU-Net's predictor builds it through this, too."""
        network = nnUNetTrainer.build_network_architecture(
            plans_manager, configuration_manager, num_input_channels, num_output_channels, enable_deep_supervision
        )
        add_dropout(network, cls.dropout_where, cls.dropout_rate)
        return network


class nnUNetTrainerDropoutCenter(nnUNetTrainerDropout):  # noqa: N801 (nnU-Net's way of naming)
    """Dropout around the bottom of the U."""

    dropout_where = "center"
