"""nnU-Net trainers that give a checkpoint ensemble out of one training: a learning rate in cycles, several checkpoints a cycle.

After Zhao et al., "Efficient Bayesian Uncertainty Estimation for nnU-Net" (MICCAI 2022, arXiv 2212.06278); see cyclic_schedule.py.
    nnUNet_extTrainer=FOLDER nnUNetv2_train DATASET 3d_fullres 0 -tr nnUNetTrainerCyclicCheckpoints
Every checkpoint is complete: nnU-Net predicts with it (`-chk checkpoint_cycle1_epoch400.pth`) and can go on from it. The last
one holds the same weights as checkpoint_final.pth.
To change the numbers, write a subclass with other class attributes into a folder of your own:
    from nnUNetTrainerCyclicCheckpoints import nnUNetTrainerCyclicCheckpoints
    class nnUNetTrainerFiveCycles(nnUNetTrainerCyclicCheckpoints):
        cycles = 5
and set PYTHONPATH=FOLDER and nnUNet_extTrainer=YOUR_FOLDER.
"""

from os.path import join

import torch
from cyclic_schedule import CyclicSchedule, CyclicScheduler
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


class nnUNetTrainerCyclicCheckpoints(nnUNetTrainer):  # noqa: N801 (nnU-Net's way of naming)
    """Preset t_local: every cycle decays the same way, and restarts at the rate it began with."""

    cycles = 3
    """How often the rate restarts."""
    epochs_per_cycle = 400
    """Length of a cycle; the whole training has cycles * epochs_per_cycle epochs."""
    checkpoints_per_cycle = 10
    """How many checkpoints of a cycle are kept, evenly spread over its last fifth."""
    base_rate = 0.01
    """alpha_0, the rate the decay starts from; nnU-Net's own."""
    restart_rate = 0.01
    """alpha_r, the rate of each cycle's first epoch."""
    decay = "local"
    """What decays: the epoch within the cycle ("local") or of the whole training ("global")."""

    def __init__(self, plans, configuration, fold, dataset_json, device=torch.device("cuda")) -> None:  # noqa: B008 (nnU-Net's own)
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.schedule = CyclicSchedule(
            cycles=self.cycles,
            epochs_per_cycle=self.epochs_per_cycle,
            checkpoints_per_cycle=self.checkpoints_per_cycle,
            base_rate=self.base_rate,
            restart_rate=self.restart_rate,
            decay=self.decay,
        )
        self.num_epochs = self.schedule.epochs
        self.initial_lr = self.base_rate

    def configure_optimizers(self):
        """nnU-Net's optimizer under the cyclical rate."""
        optimizer, _ = super().configure_optimizers()
        return optimizer, CyclicScheduler(optimizer, self.schedule)

    def on_epoch_end(self) -> None:
        """Keep the checkpoint of this epoch where one is due."""
        cycle = self.schedule.cycle_to_keep(self.current_epoch)
        super().on_epoch_end()
        if cycle is None:
            return
        # Only now the epoch's log is complete, without which nnU-Net could not go on from the checkpoint. But the base class has
        # counted the epoch up, and save_checkpoint stores current_epoch + 1: step back for it, as nnU-Net's on_train_end does.
        self.current_epoch -= 1
        try:
            self.save_checkpoint(join(self.output_folder, f"checkpoint_cycle{cycle}_epoch{self.current_epoch + 1}.pth"))
        finally:
            self.current_epoch += 1


class nnUNetTrainerCyclicCheckpointsGlobal(nnUNetTrainerCyclicCheckpoints):  # noqa: N801 (nnU-Net's way of naming)
    """Preset t_global: the decay goes on over the whole training, and each cycle begins with one epoch at ten times the rate."""

    epochs_per_cycle = 200
    restart_rate = 0.1
    decay = "global"
