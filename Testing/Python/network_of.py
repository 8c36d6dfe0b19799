"""What tests of networks share: a model's network through the library's own path, and its answer."""

import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from CalibUncertaintyLib.inference.networks import build_network, input_channels, load_weights
from CalibUncertaintyLib.inference.trainer_search import find_trainer
from CalibUncertaintyLib.model.checkpoint import load_checkpoint
from CalibUncertaintyLib.model.folder import ModelFolder


def opened(folder, trainers=None, trusted=False):
    """The model's network with the weights of fold 0, through the library's own path."""
    model = ModelFolder.open(folder)
    checkpoint = load_checkpoint(model.checkpoint_path(0))
    manager = PlansManager(model.plans)
    configuration = manager.get_configuration(checkpoint.configuration)
    trainer = find_trainer(checkpoint.trainer, trainers)
    channels = input_channels(model, manager, configuration)
    network = build_network(model, manager, configuration, channels, model.heads.channels, trainer, trusted)
    load_weights(network, checkpoint, model, trainer)
    return network.eval(), channels, len(configuration.patch_size)


def answer(network, channels, dims):
    torch.manual_seed(3)
    with torch.inference_mode():
        return network(torch.randn(1, channels, *[16] * dims))
