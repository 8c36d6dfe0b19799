"""The cyclical learning rate of Zhao et al., "Efficient Bayesian Uncertainty Estimation for nnU-Net" (MICCAI 2022).

arXiv 2212.06278. Two public re-implementations disagree; both are here, as `decay="local"` and `decay="global"`. Plain Python.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor, isfinite

DECAYS = ("local", "global")


@dataclass(frozen=True)
class CyclicSchedule:
    """Learning rate of every epoch, and the epochs whose weights are kept.

    With T = cycles * epochs_per_cycle, epoch t and its place in the cycle t_c = t mod epochs_per_cycle:
    rate = restart_rate if t_c = 0, else base_rate * (1 - s / T) ** exponent, where the decay stops at the plateau
    P = floor(plateau_start * epochs_per_cycle) of each cycle: "local" takes s = min(t_c, P) and so repeats the same cycle,
    "global" takes s = (t - t_c) + min(t_c, P) and so decays over the whole training.
    """

    cycles: int
    epochs_per_cycle: int
    checkpoints_per_cycle: int
    base_rate: float
    restart_rate: float
    decay: str = "local"
    plateau_start: float = 0.8  # gamma
    exponent: float = 0.9  # epsilon

    def __post_init__(self) -> None:
        for name in ("cycles", "epochs_per_cycle", "checkpoints_per_cycle"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is {value!r}; give a whole number of at least 1")
        for name in ("base_rate", "restart_rate"):
            value = getattr(self, name)
            if not (isfinite(value) and value > 0):
                raise ValueError(f"{name} is {value!r}; give a learning rate above 0")
        if self.decay not in DECAYS:
            raise ValueError(f"decay is {self.decay!r}; choose one of {', '.join(DECAYS)}")
        if not 0 <= self.plateau_start < 1:
            raise ValueError(
                f"plateau_start is {self.plateau_start!r}; give a share of the cycle, at least 0 and below 1"
            )
        if self.checkpoints_per_cycle > self.epochs_per_cycle - self.plateau:
            raise ValueError(
                f"{self.checkpoints_per_cycle} checkpoints a cycle do not fit into its plateau of"
                f" {self.epochs_per_cycle - self.plateau} epochs; make the cycle longer or keep fewer"
            )

    @property
    def epochs(self) -> int:
        """T, the epochs of the whole training."""
        return self.cycles * self.epochs_per_cycle

    @property
    def plateau(self) -> int:
        """The first epoch of a cycle (counted from 0 within it) at which the rate stays where it is."""
        # 0.8 * 15 is 12.000000000000002 and 0.29 * 100 is 28.999999999999996 in binary: the nearest whole number is meant.
        return floor(round(self.plateau_start * self.epochs_per_cycle, 9))

    def rate(self, epoch: int) -> float:
        """Learning rate of an epoch, counted from 0. ValueError outside the training."""
        if not 0 <= epoch < self.epochs:
            raise ValueError(f"epoch {epoch} is outside the schedule of {self.epochs} epochs")
        cycle, place = divmod(epoch, self.epochs_per_cycle)
        if place == 0:
            return self.restart_rate
        steps = min(place, self.plateau)
        if self.decay == "global":
            steps += cycle * self.epochs_per_cycle
        return self.base_rate * (1 - steps / self.epochs) ** self.exponent

    def cycle_to_keep(self, epoch: int) -> int | None:
        """The cycle (from 1) whose checkpoint is due when this epoch (from 0) has ended, else None.

        Our definition: evenly spread over the plateau, the last one at the end of the cycle.
        """
        cycle, place = divmod(epoch, self.epochs_per_cycle)
        length = self.epochs_per_cycle - self.plateau
        due = {
            self.plateau + ceil(length * (index + 1) / self.checkpoints_per_cycle) - 1
            for index in range(self.checkpoints_per_cycle)
        }
        return cycle + 1 if place in due else None


class CyclicScheduler:
    """Sets an optimizer's learning rate from a CyclicSchedule: nnU-Net calls `step(epoch)` before each epoch."""

    def __init__(self, optimizer, schedule: CyclicSchedule) -> None:
        self.optimizer = optimizer
        self.schedule = schedule
        self.step(0)

    def step(self, epoch: int) -> None:
        """Set the rate of this epoch (from 0) in every parameter group. It has no memory, so a resumed training goes on right."""
        rate = self.schedule.rate(epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self._last_rate = [rate for _ in self.optimizer.param_groups]

    def get_last_lr(self) -> list[float]:
        """The rate of every parameter group, as PyTorch's schedulers give it."""
        return self._last_rate
