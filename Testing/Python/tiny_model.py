"""A real nnU-Net folder with a tiny, untrained network: every voxel is a toss-up, so any slip of geometry changes labels."""

import json
from copy import deepcopy
from pathlib import Path

import numpy as np
import SimpleITK as sitk

LABELS = {"background": 0, "Liver": 1, "Node": 2}


def plans(
    spacing=(2.0, 1.5, 1.5), transpose=(0, 1, 2), reader="SimpleITKIO", patch=(16, 16, 16), resampling=None, channels=1,
    residual=False, lowres=None,
) -> dict:  # fmt: skip
    """Plans as nnU-Net 2.8 writes them, for a network of two stages.

    channels: how many input images, the second and further normalised each by itself. residual: a residual encoder. lowres:
    spacing of the first stage of a cascade, which adds the configurations 3d_lowres and 3d_cascade_fullres.
    """
    dims = len(patch)
    order = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
    kernel = [[3] * dims] * 2
    configuration = {
        "data_identifier": "tiny", "preprocessor_name": "DefaultPreprocessor", "batch_size": 2, "patch_size": list(patch),
        "median_image_size_in_voxels": [30.0] * dims, "spacing": list(spacing),
        "normalization_schemes": ["CTNormalization", *["ZScoreNormalization"] * (channels - 1)],
        "use_mask_for_norm": [False] * channels, "batch_dice": False,
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": {**order, "order": 3},
        "resampling_fn_seg_kwargs": {**order, "is_seg": True},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": {**order, **(resampling or {})},
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": {
                "n_stages": 2, "features_per_stage": [4, 8], "conv_op": f"torch.nn.modules.conv.Conv{dims}d",
                "kernel_sizes": kernel, "strides": [[1] * dims, [2] * dims], "n_conv_per_stage": [1, 1],
                "n_conv_per_stage_decoder": [1], "conv_bias": True,
                "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dims}d", "norm_op_kwargs": {"eps": 1e-5, "affine": True},
                "dropout_op": None, "dropout_op_kwargs": None, "nonlin": "torch.nn.LeakyReLU", "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }  # fmt: skip
    if residual:
        configuration["architecture"]["network_class_name"] = (
            "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet"
        )
        arguments = configuration["architecture"]["arch_kwargs"]
        arguments["n_blocks_per_stage"] = arguments.pop("n_conv_per_stage")
    configurations = {"2d" if dims == 2 else "3d_fullres": configuration}
    if lowres is not None:
        configurations["3d_lowres"] = {
            "inherits_from": "3d_fullres", "spacing": list(lowres), "next_stage": "3d_cascade_fullres", "data_identifier": "low",
        }  # fmt: skip
        configurations["3d_cascade_fullres"] = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}
    intensity = {"max": 1000.0, "mean": 20.0, "median": 30.0, "min": -1000.0, "percentile_00_5": -900.0, "percentile_99_5": 900.0,
                 "std": 300.0}  # fmt: skip
    return {
        "dataset_name": "Dataset999_Tiny", "plans_name": "nnUNetPlans", "original_median_spacing_after_transp": [2.0, 1.5, 1.5],
        "original_median_shape_after_transp": [30, 30, 30], "image_reader_writer": reader,
        "transpose_forward": list(transpose), "transpose_backward": [int(i) for i in np.argsort(transpose)],
        "configurations": configurations,
        "experiment_planner_used": "ExperimentPlanner", "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {str(i): intensity for i in range(channels)},
    }  # fmt: skip


def write_model(
    folder: Path, content: dict, folds=(0, 1), labels=None, channels=None, sharpness=4.0, seed=0, configuration=None,
    regions_class_order=None, trainer="nnUNetTrainer",
) -> Path:  # fmt: skip
    """Write a model folder with untrained weights and return it. sharpness: factor of the last layer, how sure it is.

    configuration: which of the plans', the first by default. regions_class_order: as dataset.json needs it for regions.
    """
    import torch
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
    from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    configuration = configuration or next(iter(content["configurations"]))
    model = folder / "Dataset999_Tiny" / f"{trainer}__nnUNetPlans__{configuration}"
    model.mkdir(parents=True)
    dataset = {"channel_names": channels or {"0": "CT"}, "labels": labels or LABELS, "numTraining": 4, "file_ending": ".nii.gz"}
    if regions_class_order is not None:
        dataset["regions_class_order"] = list(regions_class_order)
    (model / "plans.json").write_text(json.dumps(content))
    (model / "dataset.json").write_text(json.dumps(dataset))
    manager = PlansManager(deepcopy(content))
    settings = manager.get_configuration(configuration)
    dims = len(settings.patch_size)
    for fold in folds:
        torch.manual_seed(seed + fold)
        network = get_network_from_plans(
            settings.network_arch_class_name, settings.network_arch_init_kwargs, settings.network_arch_init_kwargs_req_import,
            determine_num_input_channels(manager, settings, dataset), manager.get_label_manager(dataset).num_segmentation_heads,
            allow_init=True, deep_supervision=False,
        )  # fmt: skip
        weights = network.state_dict()
        for name in weights:
            if "seg_layers" in name:
                # no class is preferred by its bias, nor by the mean of the features: every voxel can become each of them
                centred = weights[name] - weights[name].mean(dim=(0, 1) if weights[name].ndim > 1 else 0, keepdim=True)
                if centred.ndim > 1:
                    centred -= centred.mean(dim=1, keepdim=True)
                weights[name] = centred * (sharpness if centred.ndim > 1 else 0.0)
        (model / f"fold_{fold}").mkdir()
        torch.save(
            {
                "network_weights": weights, "trainer_name": trainer, "init_args": {"configuration": configuration},
                "inference_allowed_mirroring_axes": tuple(range(dims)),
            },
            model / f"fold_{fold}" / "checkpoint_final.pth",
        )  # fmt: skip
    return model


def write_ct(path: Path, shape=(24, 30, 28), spacing=(1.5, 1.5, 2.0), direction=None, seed: int = 0, empty_border: int = 0) -> Path:
    """Write a CT-like image: smooth random HU, geometry as SimpleITK has it (x, y, z). empty_border: voxels of exact 0 around."""
    generator = np.random.default_rng(seed)
    image = sitk.GetImageFromArray(generator.normal(0, 400, shape).astype(np.float32))
    array = sitk.GetArrayFromImage(sitk.SmoothingRecursiveGaussian(image, 2.0)) * 8
    array = np.clip(array, -1000, 1500).round().astype(np.int16)
    array[array == 0] = 1
    if empty_border:
        b = empty_border
        inside = array[b : -b - 2, b:-b, b + 1 : -b].copy()
        array[...] = 0
        array[b : -b - 2, b:-b, b + 1 : -b] = inside
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    image.SetOrigin((-31.5, 12.25, 100.0))
    if direction is not None:
        image.SetDirection(np.asarray(direction, dtype=float).ravel().tolist())
    sitk.WriteImage(image, str(path))
    return path


def rotation(degrees: float) -> np.ndarray:
    """An oblique direction matrix: turned about x, then about z."""
    a = np.deg2rad(degrees)
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    return about_z @ about_x


def stock_prediction(
    model: Path, ct: Path | list[Path], out: Path, folds=(0, 1), mirroring: bool = True, previous: Path | None = None
):
    """Stock nnU-Net from file to file: its own writer's label volume, and probabilities (C, ...) in its reader's axes.

    ct: the image of every channel. previous: what it wrote for the previous stage of a cascade.
    """
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(
        use_mirroring=mirroring, device=torch.device("cpu"), perform_everything_on_device=False, allow_tqdm=False
    )
    predictor.initialize_from_trained_model_folder(str(model), tuple(folds))
    reader = predictor.plans_manager.image_reader_writer_class()
    array, properties = reader.read_images([str(path) for path in (ct if isinstance(ct, list) else [ct])])
    before = reader.read_seg(str(previous))[0] if previous is not None else None
    labels, probabilities = predictor.predict_single_npy_array(array, properties, before, None, True)
    reader.write_seg(labels, str(out), properties)
    return sitk.ReadImage(str(out)), probabilities
