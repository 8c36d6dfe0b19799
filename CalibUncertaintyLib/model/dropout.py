"""Dropout inside an nnU-Net network: where it is put, where it is found, and which trainers of ours put it there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import CalibUncertaintyError

if TYPE_CHECKING:
    from torch import nn

PLACES = ("decoder", "center")
# What the classes in trainers/nnUNetTrainerDropout.py say; a test keeps the two together.
_TRAINERS = {"nnUNetTrainerDropout": ("decoder", 0.5), "nnUNetTrainerDropoutCenter": ("center", 0.5)}
_NAME = "monte_carlo_dropout"


def dropout_settings(trainer_name: str) -> tuple[str, float] | None:
    """Where and at which rate one of our trainers puts dropout; None for every other trainer."""
    return _TRAINERS.get(trainer_name)


def dropout_layers(network: nn.Module) -> list[nn.Module]:
    """Every dropout layer of a network that drops anything, those of its plans too, in the network's order."""
    from torch.nn.modules.dropout import _DropoutNd

    return [layer for layer in network.modules() if isinstance(layer, _DropoutNd) and layer.p > 0]


def add_dropout(network: nn.Module, where: str, rate: float) -> list[nn.Module]:
    """Put dropout of single values into a U-Net of nnU-Net, in place; returns the new layers (active in training mode, as usual).

    where, after Rousseau et al. (ISBI 2021), section 2, with the bottom of the U counted as an encoder block, as nnU-Net does:
    "decoder": on what every decoder block receives (the upsampled features and the skip), and on what the output layer receives;
    "center": on what the two lowest encoder blocks give out, and on what the two lowest decoder blocks receive. (Their published
    code differs from their text: it takes the third lowest encoder block as well.)
    The names and shapes of the weights stay those of the plain network, so checkpoints fit both ways.
    Raises CalibUncertaintyError for another place, a rate outside (0, 1), a network without these parts, or one that has its
    dropout already.
    """
    from torch import nn

    if where not in PLACES:
        raise CalibUncertaintyError(f"dropout can be put at {' or '.join(PLACES)}, not at {where!r}")
    if not 0 < rate < 1:
        raise CalibUncertaintyError(f"a dropout rate lies between 0 and 1, both excluded, and {rate!r} does not")
    encoder, decoder = getattr(network, "encoder", None), getattr(network, "decoder", None)
    if not (hasattr(encoder, "stages") and hasattr(decoder, "stages") and hasattr(decoder, "seg_layers")):
        raise CalibUncertaintyError(
            f"dropout cannot be put into a {type(network).__name__}: only U-Nets of nnU-Net have the encoder and decoder blocks it"
            " belongs to; use folds or checkpoints as members"
        )
    if any(name.rpartition(".")[2] == _NAME for name, _ in network.named_modules()):
        raise CalibUncertaintyError("the network has its dropout already; put it in once")
    if where == "decoder":
        received, given = [*decoder.stages, decoder.seg_layers[-1]], []
    else:
        received, given = list(decoder.stages[:2]), list(encoder.stages[-2:])
    layers = []
    for block in received:
        block = _first(block)
        layers.append(_attached(block, nn.Dropout(rate)))
        block.register_forward_pre_hook(_drop_input)
    for block in given:
        block = _last(block)
        layers.append(_attached(block, nn.Dropout(rate)))
        block.register_forward_hook(_drop_output)
    return layers


# The layer is a child of the block it works on, so train(), eval(), to() and copying reach it; the hooks are plain functions that
# find it there. A Sequential would run such a child as one more step, therefore the block inside it is taken.
def _attached(block, layer):
    block.add_module(_NAME, layer)
    return layer


def _drop_input(block, arguments):
    return (getattr(block, _NAME)(arguments[0]), *arguments[1:])


def _drop_output(block, _arguments, output):
    return getattr(block, _NAME)(output)


def _first(block):
    from torch import nn

    while isinstance(block, nn.Sequential):
        block = block[0]
    return block


def _last(block):
    from torch import nn

    while isinstance(block, nn.Sequential):
        block = block[-1]
    return block
