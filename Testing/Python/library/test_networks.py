"""Networks as plans and trainers describe them, compared with nnU-Net's predictor; code is run only where a folder was named."""

import json
import os
import subprocess
import sys
import textwrap

import pytest
import torch
from network_of import answer, opened
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from tiny_model import plans, write_model

from CalibUncertaintyLib import CalibUncertaintyError
from CalibUncertaintyLib.inference import trainer_search
from CalibUncertaintyLib.inference.trainer_search import find_trainer
from CalibUncertaintyLib.model.dropout import dropout_layers
from CalibUncertaintyLib.model.folder import ModelFolder

CASES = {
    "residual encoder": (dict(residual=True), {}),
    "two channels": (dict(channels=2), dict(channels={"0": "CT", "1": "PET"})),
    "2d": (dict(patch=(16, 16), spacing=(1.5, 1.5)), {}),
    "cascade": (dict(lowres=(4.0, 3.0, 3.0)), dict(configuration="3d_cascade_fullres")),
    "3d_lowres": (dict(lowres=(4.0, 3.0, 3.0)), dict(configuration="3d_lowres")),
    "regions": ({}, dict(labels={"background": 0, "Whole": [1, 2], "Node": 2}, regions_class_order=(1, 2))),
    "cascade of regions": (
        dict(lowres=(4.0, 3.0, 3.0)),
        dict(
            configuration="3d_cascade_fullres",
            labels={"background": 0, "Whole": [1, 2, 3], "Node": 2},
            regions_class_order=(1, 2),
        ),
    ),
    "ignore label": ({}, dict(labels={"background": 0, "Liver": 1, "Node": 2, "ignore": 3})),
}


@pytest.mark.parametrize("case", CASES)
def test_the_network_is_the_one_nnunet_builds(tmp_path, case):
    of_plans, of_model = CASES[case]
    folder = write_model(tmp_path, plans(**of_plans), folds=(0,), **of_model)
    network, channels, dims = opened(folder)
    predictor = nnUNetPredictor(device=torch.device("cpu"), perform_everything_on_device=False)
    predictor.initialize_from_trained_model_folder(str(folder), (0,))
    predictor.network.eval()
    theirs = answer(predictor.network, channels, dims)
    assert type(network) is type(predictor.network)
    assert torch.equal(answer(network, channels, dims), theirs)


def test_plans_from_before_nnunet_2_3_are_understood(tmp_path):
    content = plans()
    configuration = content["configurations"]["3d_fullres"]
    arguments = configuration.pop("architecture")["arch_kwargs"]
    configuration.update(
        UNet_class_name="PlainConvUNet", UNet_base_num_features=4, unet_max_num_features=8, num_pool_per_axis=[1, 1, 1],
        n_conv_per_stage_encoder=[1, 1], n_conv_per_stage_decoder=[1], pool_op_kernel_sizes=arguments["strides"],
        conv_kernel_sizes=arguments["kernel_sizes"],
    )  # fmt: skip
    new, old = (write_model(tmp_path / name, c, folds=(0,)) for name, c in (("new", plans()), ("old", content)))
    assert torch.equal(answer(*opened(old)), answer(*opened(new)))


# Trainers of the user's own

NEW = """
    @staticmethod
    def build_network_architecture(plans_manager, configuration_manager, num_input_channels, num_output_channels,
                                   enable_deep_supervision=True):
        dims = len(configuration_manager.patch_size)
        assert not enable_deep_supervision
        return Wide(dims, num_input_channels, num_output_channels)
"""
OLD = """
    @staticmethod
    def build_network_architecture(architecture_class_name, arch_init_kwargs, arch_init_kwargs_req_import,
                                   num_input_channels, num_output_channels, enable_deep_supervision=True):
        assert architecture_class_name.endswith("PlainConvUNet") and arch_init_kwargs["n_stages"] == 2
        return Wide(3, num_input_channels, num_output_channels)
"""
HEAD = """
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from wide import Wide
class nnUNetTrainerWide(nnUNetTrainer):
"""
NETWORK = """
import torch
class Wide(torch.nn.Module):
    def __init__(self, dims, inputs, outputs):
        super().__init__()
        self.only = (torch.nn.Conv3d if dims == 3 else torch.nn.Conv2d)(inputs, outputs, 3, padding=1)
    def forward(self, x):
        return self.only(x) * 2
"""


@pytest.fixture
def own(tmp_path):
    """A model of a trainer whose network is its own, and the folder of the trainer."""
    folder = write_model(tmp_path, plans(), folds=(0,), trainer="nnUNetTrainerWide")
    path = folder / "fold_0" / "checkpoint_final.pth"
    content = torch.load(path, weights_only=True)
    torch.manual_seed(0)
    convolution = torch.nn.Conv3d(1, 3, 3, padding=1)
    content["network_weights"] = {f"only.{name}": value for name, value in convolution.state_dict().items()}
    path.unlink()
    torch.save(content, path)
    trainers = tmp_path / "trainers"
    trainers.mkdir()
    (trainers / "wide.py").write_text(NETWORK)
    (trainers / "mine.py").write_text(HEAD + NEW)
    return folder, trainers, convolution


@pytest.mark.parametrize("signature", [NEW, OLD], ids=["2.7 and later", "before 2.7"])
def test_a_trainers_own_network_is_built(own, signature):
    folder, trainers, convolution = own
    (trainers / "mine.py").write_text(HEAD + signature)
    network, channels, dims = opened(folder, trainers)
    assert torch.equal(answer(network, channels, dims), answer(convolution.eval(), 1, 3) * 2)
    assert find_trainer("nnUNetTrainerWide", trainers).remark == ""


def test_loading_a_trainer_leaves_no_trace(own):
    folder, trainers, _ = own
    path, modules = list(sys.path), set(sys.modules)
    opened(folder, trainers)
    assert sys.path == path
    assert not {"mine", "wide"} & (set(sys.modules) - modules)


def test_a_trainer_in_a_package_finds_what_it_imports_relatively(own):
    folder, trainers, _ = own
    package = trainers / "package" / "deeper"
    package.mkdir(parents=True)
    for place in (package, package.parent):
        (place / "__init__.py").touch()
    (trainers / "mine.py").unlink()
    (trainers / "wide.py").rename(package / "wide.py")
    (package / "mine.py").write_text(HEAD.replace("from wide", "from .wide") + NEW)
    assert isinstance(opened(folder, trainers)[0], torch.nn.Module)


def test_a_network_inherited_from_another_file_of_the_folder_is_seen(own):
    folder, trainers, _ = own
    (trainers / "mine.py").write_text((HEAD + NEW).replace("nnUNetTrainerWide", "Base"))
    (trainers / "child.py").write_text("from mine import Base\nclass nnUNetTrainerWide(Base):\n    pass\n")
    assert find_trainer("nnUNetTrainerWide", trainers).has_own_network
    assert isinstance(opened(folder, trainers)[0], torch.nn.Module)


def test_a_trainer_that_cannot_be_found_is_refused_with_what_to_do(own):
    folder, _, _ = own
    with pytest.raises(CalibUncertaintyError, match=r"trained by nnUNetTrainerWide, .*--trainers DIR") as refusal:
        opened(folder)
    assert str(folder / "fold_0" / "checkpoint_final.pth") in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_weights_of_another_training_are_refused_whoever_the_trainer_is(own, tmp_path):
    _, trainers, _ = own
    other = write_model(tmp_path / "other", plans(), folds=(0,), trainer="nnUNetTrainerWide")
    with pytest.raises(CalibUncertaintyError, match=r"than nnUNetTrainerWide in .*mine\.py builds"):
        opened(other, trainers)
    narrow = json.loads((other / "plans.json").read_text(encoding="utf-8"))
    narrow["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]["features_per_stage"] = [6, 12]
    (other / "plans.json").write_text(json.dumps(narrow))
    (trainers / "mine.py").write_text(HEAD + "    epochs = 5\n")
    with pytest.raises(CalibUncertaintyError, match=r"mine\.py\) uses unchanged"):
        opened(other, trainers)


def test_a_trainer_that_changes_only_the_training_is_bypassed(tmp_path):
    """Its file is read, not run: it may want packages that are not here."""
    folder = write_model(tmp_path, plans(), folds=(0,), trainer="nnUNetTrainerLong")
    plain = write_model(tmp_path / "plain", plans(), folds=(0,))
    trainers = tmp_path / "trainers"
    trainers.mkdir()
    expected = answer(*opened(plain))
    unknown = find_trainer("nnUNetTrainerLong")
    assert "nnUNetTrainerLong" in unknown.remark
    assert "--trainers" in unknown.remark
    assert torch.equal(answer(*opened(folder)), expected)
    (trainers / "long.py").write_text(
        f"import not_installed\nopen({str(tmp_path / 'ran')!r}, 'w')\nfrom nnunetv2.training.nnUNetTrainer.nnUNetTrainer import"
        " nnUNetTrainer\nclass nnUNetTrainerLong(nnUNetTrainer):\n    def on_train_start(self): ...\n"
    )
    assert torch.equal(answer(*opened(folder, trainers)), expected)
    assert not (tmp_path / "ran").exists()
    assert find_trainer("nnUNetTrainerLong", trainers).remark == ""


@pytest.mark.parametrize("name", ["nnUNetTrainer_250epochs", "nnUNetTrainerNoMirroring", "nnUNetTrainerDiceCELoss_noSmooth"])
def test_nnunets_own_variants_need_no_folder(tmp_path, name):
    found = find_trainer(name)
    assert found.file is not None
    assert (found.has_own_network, found.remark) == (False, "")


def test_nnunets_own_variant_with_another_network_is_built_as_nnunet_does(tmp_path):
    folder = write_model(tmp_path, plans(), folds=(0,), trainer="nnUNetTrainerBN")
    from nnunetv2.training.nnUNetTrainer.variants.network_architecture.nnUNetTrainerBN import nnUNetTrainerBN

    manager = PlansManager(ModelFolder.open(folder).plans)
    theirs = nnUNetTrainerBN.build_network_architecture(manager, manager.get_configuration("3d_fullres"), 1, 3, False)
    for name, values in theirs.state_dict().items():
        if "running" in name:
            values.uniform_(0.2, 2.0)
    path = folder / "fold_0" / "checkpoint_final.pth"
    content = torch.load(path, weights_only=True)
    content["network_weights"] = theirs.state_dict()
    path.unlink()
    torch.save(content, path)
    network, channels, dims = opened(folder)
    assert any(isinstance(layer, torch.nn.BatchNorm3d) for layer in network.modules())
    assert torch.equal(answer(network, channels, dims), answer(theirs.eval(), channels, dims))


def test_a_class_that_has_moved_is_found_again(tmp_path):
    content = plans(residual=True)
    architecture = content["configurations"]["3d_fullres"]["architecture"]
    folder = write_model(tmp_path, content, folds=(0,))
    expected = answer(*opened(folder))
    architecture["network_class_name"] = "dynamic_network_architectures.architectures.residual_unet.ResidualEncoderUNet"
    (folder / "plans.json").write_text(json.dumps(content))
    assert torch.equal(answer(*opened(folder)), expected)


@pytest.mark.parametrize("name", ["nnUNetTrainerDropout", "nnUNetTrainerDropoutCenter"])
def test_our_dropout_trainers_networks_have_their_dropout(tmp_path, name):
    from CalibUncertaintyLib.trainers import FOLDER

    folder = write_model(tmp_path, plans(), folds=(0,), trainer=name)
    network, channels, dims = opened(folder)
    # the trainer's own code, as somebody gets it who names its folder
    trainer = trainer_search.FoundTrainer(name, FOLDER / "nnUNetTrainerDropout.py", FOLDER, True)
    manager = PlansManager(ModelFolder.open(folder).plans)
    with trainer.loaded() as trainer_class:
        theirs = trainer_class.build_network_architecture(manager, manager.get_configuration("3d_fullres"), 1, 3, False)
    places = [[n for n, layer in each.named_modules() if layer in dropout_layers(each)] for each in (network, theirs)]
    assert places[0] == places[1] != []
    theirs.load_state_dict(network.state_dict())
    answers = []
    for each in (network, theirs):
        each.train()
        answers.append(answer(each, channels, dims))
    assert torch.equal(*answers)


BUILT = "return Wide(dims, num_input_channels, num_output_channels)"
FAULTS = {
    "an import that is missing": ("import not_installed\n" + HEAD + NEW, "cannot be loaded (ModuleNotFoundError"),
    "an error in its network": (HEAD + NEW.replace(BUILT, "raise ZeroDivisionError('no')"), "cannot build its network (no)"),
    "no network": (HEAD + NEW.replace(BUILT, "return 5"), "gives no network"),
    "the way of 2.2": (HEAD + NEW.replace("plans_manager,", "plans_manager, dataset_json,"), "it wants dataset_json"),
    "broken Python": (HEAD + NEW + "\n  oops", "line 13: the trainer nnUNetTrainerWide is not valid Python"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_a_trainers_file_name_the_file(own, fault):
    folder, trainers, _ = own
    text, said = FAULTS[fault]
    (trainers / "mine.py").write_text(text)
    with pytest.raises(CalibUncertaintyError) as refusal:
        opened(folder, trainers)
    assert str(trainers / "mine.py") in str(refusal.value)
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_broken_file_beside_the_trainer_is_no_matter(own):
    folder, trainers, _ = own
    (trainers / "a_draft.py").write_text("class Unfinished(:")
    (trainers / "b_binary.py").write_bytes(b"\x00\xff\x00")
    assert type(opened(folder, trainers)[0]).__name__ == "Wide"


def test_a_trainer_defined_twice_is_refused(own):
    folder, trainers, _ = own
    (trainers / "copy.py").write_text(HEAD + NEW)
    with pytest.raises(CalibUncertaintyError, match=r"defined twice, in .*copy\.py and .*mine\.py"):
        opened(folder, trainers)


def test_a_trainers_module_with_the_name_of_another_is_refused(own):
    folder, trainers, _ = own
    (trainers / "mine.py").rename(trainers / "json.py")
    with pytest.raises(CalibUncertaintyError, match=r"json\.py: .*another module called json is in its way"):
        opened(folder, trainers)


def test_a_folder_that_is_none_is_refused_whoever_the_trainer_is(own, tmp_path):
    with pytest.raises(CalibUncertaintyError, match="no/where does not exist"):
        find_trainer("nnUNetTrainer", tmp_path / "no" / "where")
    with pytest.raises(CalibUncertaintyError, match=r"mine\.py is a file; --trainers wants the folder"):
        find_trainer("nnUNetTrainerWide", own[1] / "mine.py")


def test_somebodys_whole_home_is_not_read(own, monkeypatch):
    monkeypatch.setattr(trainer_search, "MOST_FILES", 1)
    with pytest.raises(CalibUncertaintyError, match="holds more than 1 Python files"):
        find_trainer("nnUNetTrainerWide", own[1])


def test_a_trainer_is_never_run_from_a_place_that_was_not_named(own, tmp_path):
    """Neither from the working folder, nor the model's, nor what nnU-Net's own variable names."""
    folder, trainers, _ = own
    text = f"open({str(tmp_path / 'ran')!r}, 'w')\n" + HEAD + NEW
    for place in (trainers, folder, folder / "fold_0"):
        (place / "mine.py").write_text(text)
        (place / "wide.py").write_text(NETWORK)
    program = """
        import sys
        sys.path.insert(0, sys.argv[1])
        from test_networks import opened
        from CalibUncertaintyLib import CalibUncertaintyError
        try:
            opened(sys.argv[2])
        except CalibUncertaintyError as error:
            print(error)
    """
    here = os.path.dirname(__file__)
    root = os.path.dirname(os.path.dirname(os.path.dirname(here)))
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), here, str(folder)], cwd=folder, text=True, capture_output=True,
        env={**os.environ, "nnUNet_extTrainer": str(trainers), "PYTHONPATH": f"{root}{os.pathsep}{os.path.dirname(here)}"},
    )  # fmt: skip
    assert "--trainers DIR" in done.stdout, done.stderr
    assert not (tmp_path / "ran").exists()
