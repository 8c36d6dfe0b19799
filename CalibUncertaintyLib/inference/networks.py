"""The network a model's plans, or its trainer, describe, and the weights of one member put into it."""

from __future__ import annotations

import contextlib
import inspect
import io
import pydoc
import warnings
from typing import TYPE_CHECKING

from ..errors import CalibUncertaintyError
from ..model.checkpoint import Checkpoint
from ..model.dropout import add_dropout, dropout_settings
from ..model.folder import ModelFolder
from .trainer_search import FoundTrainer, moved_architecture

if TYPE_CHECKING:
    import torch
    from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

# What a class or a function raises that is given what it does not know
_BUILD_ERRORS = (
    ImportError, TypeError, KeyError, AttributeError, RuntimeError, ValueError, AssertionError, IndexError,
    pydoc.ErrorDuringImport,
)  # fmt: skip
# Where the classes come from that nnU-Net itself writes into plans
_NETWORK_PARTS = ("torch.nn.", "dynamic_network_architectures.", "nnunetv2.")


def input_channels(model: ModelFolder, plans_manager: PlansManager, configuration_manager: ConfigurationManager) -> int:
    """Channels of the network's input: the images, and in a cascade one more for each foreground label of the previous stage."""
    images = len(model.channels)
    if configuration_manager.previous_stage_name is None:
        return images
    return images + len(plans_manager.get_label_manager(model.dataset).foreground_labels)


def build_network(
    model: ModelFolder, plans: PlansManager, configuration: ConfigurationManager, n_channels: int, n_heads: int,
    trainer: FoundTrainer | None = None, trusted: bool = False,
) -> torch.nn.Module:  # fmt: skip
    """An untrained network as the trainer built it, or as the plans describe it where no trainer has a network of its own.

    plans, configuration: nnU-Net's managers. trainer: see `find_trainer`. Deep supervision is off. trusted: let the plans name
    classes of any package, as nnU-Net does; a trainer in the user's own folder says so too. Else only nnU-Net's and PyTorch's
    are imported and called.
    Raises CalibUncertaintyError naming the plans' architecture, or the trainer, that cannot be built.
    """
    if not (trusted or (trainer is not None and trainer.is_users)):
        _refuse_strange_parts(model, configuration)
    ours = dropout_settings(trainer.name) if trainer is not None and trainer.is_ours else None
    if trainer is not None and trainer.has_own_network and ours is None:
        return _build_with_trainer(trainer, plans, configuration, n_channels, n_heads)
    network = _build_from_plans(model, configuration, n_channels, n_heads)
    if ours is not None:  # as its trainer would, without seconds of importing all that training needs
        add_dropout(network, *ours)
    return network


def _refuse_strange_parts(model: ModelFolder, configuration) -> None:
    """plans.json may come from a stranger, and nnU-Net imports and calls whatever it names: an architecture and its parts."""
    name = "architecture"
    try:
        name = configuration.network_arch_class_name
        arguments = configuration.network_arch_init_kwargs
        # nnU-Net's trainer with batch normalisation imports the convolution whether or not the plans list it
        keys = (*configuration.network_arch_init_kwargs_req_import, "conv_op")
        named = [name, *(arguments[key] for key in keys if arguments.get(key) is not None)]
        strange = [each for each in named if not _is_network_part(each)]
    except _BUILD_ERRORS as error:
        raise _unbuildable(model, name, error) from error
    if strange:
        raise CalibUncertaintyError(
            f"{model.path / 'plans.json'} names {' '.join(str(strange[0]).split())}, which is none of nnU-Net's network parts; if"
            " you trust where the model comes from, run again with --trust-checkpoint"
        )


def _is_network_part(name) -> bool:
    """Whether a name leads to a network class of nnU-Net or PyTorch, or to nothing in their packages. No others are imported."""
    if not (isinstance(name, str) and name.startswith(_NETWORK_PARTS) and all(map(str.isidentifier, name.split(".")))):
        return False
    found = pydoc.locate(name)
    if found is None:
        return True
    # modules hold what they import: torch.nn.modules.module.torch.fx would lead out of torch.nn again
    return _is_network(found) and f"{found.__module__}.".startswith(_NETWORK_PARTS)


def _is_network(found) -> bool:
    import torch

    return inspect.isclass(found) and issubclass(found, torch.nn.Module)


def _build_from_plans(model: ModelFolder, configuration, n_channels: int, n_heads: int):
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    name = "architecture"
    try:
        name = configuration.network_arch_class_name
        arguments = configuration.network_arch_init_kwargs
        imported = configuration.network_arch_init_kwargs_req_import
        for key in imported:
            # nnU-Net would put None for what is not there, and build another network without a word
            if arguments[key] is not None and not _is_network(pydoc.locate(arguments[key])):
                raise TypeError(f"its {key}, {arguments[key]}, is not there or no network of PyTorch")
        with _quiet():
            return get_network_from_plans(
                _architecture_of(name),
                arguments,
                imported,
                n_channels,
                n_heads,
                allow_init=False,
                deep_supervision=False,
            )
    except _BUILD_ERRORS as error:
        raise _unbuildable(model, name, error) from error


def _unbuildable(model: ModelFolder, name, error: Exception) -> CalibUncertaintyError:
    return CalibUncertaintyError(
        f"{model.path / 'plans.json'}: the network {name} cannot be built ({_one_line(error)});"
        " install the package it comes from"
    )


def _architecture_of(name: str) -> str:
    """The full name under which the class of an architecture is there, which must be a network.

    nnU-Net looks for a class that has moved by importing every architecture it knows, and with them packages that may be
    missing; here the files are read.
    """
    found = pydoc.locate(name)
    if found is None:
        name = moved_architecture(name.rpartition(".")[2])
        found = pydoc.locate(name) if name else None
    if found is None:
        raise ImportError("there is no such class in this Python")
    if not _is_network(found):
        raise TypeError("it is no network of PyTorch")
    return name


def _build_with_trainer(trainer: FoundTrainer, plans, configuration, n_channels: int, n_heads: int):
    """As nnU-Net's own predictor asks a trainer: in the signature of 2.7 and later, or in that of 2.3 to 2.6."""
    with trainer.loaded() as trainer_class:
        try:
            build = trainer_class.build_network_architecture
            parameters = inspect.signature(build).parameters
            if "dataset_json" in parameters:
                raise TypeError("it wants dataset_json, as nnU-Net did until 2.2; give it the arguments of a newer one")
            if "plans_manager" in parameters:
                described = (plans, configuration)
            else:
                described = (
                    configuration.network_arch_class_name,
                    configuration.network_arch_init_kwargs,
                    configuration.network_arch_init_kwargs_req_import,
                )
            with _quiet():
                network = build(*described, n_channels, n_heads, enable_deep_supervision=False)
        except Exception as error:  # somebody's own code: anything can be wrong in it
            raise CalibUncertaintyError(
                f"{trainer.file}: {trainer.name} cannot build its network ({_one_line(error)})"
            ) from error
    import torch

    if not isinstance(network, torch.nn.Module):
        raise CalibUncertaintyError(f"{trainer.file}: {trainer.name}.build_network_architecture gives no network")
    return network


def load_weights(
    network: torch.nn.Module, checkpoint: Checkpoint, model: ModelFolder, trainer: FoundTrainer | None = None
) -> None:
    """Put a member's weights into the network; every one must have its place.

    Raises CalibUncertaintyError naming the checkpoint and, where a custom trainer may have changed the network, what to do.
    """
    try:
        network.load_state_dict(checkpoint.weights)
    except RuntimeError as error:
        raise CalibUncertaintyError(_misfit(checkpoint, model, trainer)) from error


def _misfit(checkpoint: Checkpoint, model: ModelFolder, trainer: FoundTrainer | None) -> str:
    if trainer is None or trainer.is_stock:
        return (
            f"{checkpoint.path} belongs to another network than {model.path / 'plans.json'} describes; copy the fold and the plans"
            " of the same training"
        )
    if trainer.has_own_network:
        return (
            f"{checkpoint.path} belongs to another network than {trainer.name} in {trainer.file} builds; give the trainer's file"
            " and the plans as they were when it was trained"
        )
    if trainer.file is not None:
        return (
            f"{checkpoint.path} belongs to another network than {model.path / 'plans.json'} describes, which its trainer"
            f" {trainer.name} ({trainer.file}) uses unchanged; copy the fold and the plans of the same training"
        )
    return (
        f"{checkpoint.path} was trained by {trainer.name}, whose network is another than {model.path / 'plans.json'} describes;"
        " name the folder that holds the trainer's file with --trainers DIR (its code will be run)"
    )


@contextlib.contextmanager
def _quiet():
    """nnU-Net and its networks print and warn while they are built."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
