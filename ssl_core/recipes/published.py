"""Recipes of published systems, each in its own setting; two small ones also with recommended settings."""

from typing import Any

from ssl_core.recipes.recipe import Recipe

_GOOGLE_LARS = {
    "name": "lars",
    "momentum": 0.9,
    "trust": 0.001,
    "classic_momentum": True,
    "nesterov": False,
    "decay_norm_and_bias": False,
}
_IN_PRETRAINING = ", which are in the pretraining data without their labels"
_CROP_AND_FLIP = {"crop_area": [0.08, 1.0], "flip": 0.5, "jitter": 0.0, "grey": 0.0}


def _evaluation(lr: float, weight_decay: float, epochs: int, **changes: Any) -> dict[str, Any]:
    """Return the linear protocol of google-research/simclr: one learning rate for batch 512 or 4096, crop and flip."""
    fixed = {"learning_rates": [lr], "weight_decays": [weight_decay], "epochs": epochs}
    return {"augment": True, "standardise": False, **fixed, **changes}


def _finetune(percent: int, plain: float, selective: float) -> Recipe:
    return Recipe(
        name=f"simclrv2-finetune-{percent}pct",
        kind="finetune",
        description=f"SimCLRv2: fine-tuning of the whole network from the first layer of the projection head, with"
        f" {percent} % of the labels. The job's model is a SimCLRv2 network with a head of three layers.",
        source="SimCLRv2 (arXiv:2006.10029), section 3 and appendix; google-research/simclr, README: fine-tuning",
        hardware="one GPU or more for ImageNet at batch 1024",
        duration="60 epochs",
        result=f"ImageNet: {plain} % with a ResNet-50, {selective} % with selective kernels",
        config={
            "label_fraction": percent / 100,
            "fine_tune_after_block": -1,
            "ft_proj_selector": 1,
            "views": _CROP_AND_FLIP,
            "epochs": 60,
            "batch_size": 1024,
            "optimizer": {**_GOOGLE_LARS, "lr": 0.005, "weight_decay": 0.0},
            "schedule": {"lr_scaling": "sqrt", "warmup_epochs": 0.0, "decay": "cosine"},
        },
    )


_IMAGENET5 = {
    "backbone": {"name": "resnet50", "width": 1.0, "stem": "imagenet", "zero_init_residual": False},
    "image_size": 224,
    "phases": [{"until": 1.0, "image_size": 224}],
    "epochs": 200,
    "batch_size": 64,
}
_FLOWERS: dict[str, Any] = {
    "backbone": {"name": "resnet50", "width": 1.0, "stem": "imagenet"},
    "image_size": 224,
    "phases": [{"until": 1.0, "image_size": 224}],
    "batch_size": 64,
}

PUBLISHED = [
    Recipe(
        name="simclr-cifar10",
        kind="pretrain",
        description="SimCLR on CIFAR-10 with the authors' settings.",
        source="google-research/simclr, README: CIFAR-10 pretraining",
        hardware="one GPU",
        duration="1000 epochs",
        result="about 91 % linear",
        config={
            "method": {
                "name": "simclr",
                "temperature": 0.5,
                "projector": [512, 512, 128],
                "projector_batch_norm": True,
            },
            "backbone": {"name": "resnet18", "width": 1.0, "stem": "cifar", "layout": "google"},
            "image_size": 32,
            "phases": [{"until": 1.0, "image_size": 32}],
            "views": {"crop_area": [0.08, 1.0], "flip": 0.5, "jitter": 0.8, "jitter_strength": 0.5, "grey": 0.2},
            "normalisation": "none",
            "epochs": 1000,
            "batch_size": 512,
            "optimizer": {**_GOOGLE_LARS, "lr": 1.0, "weight_decay": 1e-4},
            "schedule": {"lr_scaling": "linear", "warmup_epochs": 10.0, "decay": "cosine"},
        },
        evaluation=_evaluation(0.2, 0.0, 100, batch_size=512),
    ),
    Recipe(
        name="simclr-imagenet",
        kind="pretrain",
        description="SimCLR on ImageNet with the authors' settings for 100 epochs.",
        source="google-research/simclr, README: ImageNet pretraining; SimCLR (arXiv:2002.05709), appendix B",
        hardware="128 TPU v3 cores in the paper; several GPUs with `devices`",
        duration="100 epochs",
        result="64.5 % linear",
        config={
            "method": {"name": "simclr", "temperature": 0.1, "projector": [2048, 2048, 128]},
            "backbone": {"name": "resnet50", "width": 1.0, "stem": "imagenet", "layout": "google"},
            "image_size": 224,
            "phases": [{"until": 1.0, "image_size": 224}],
            "views": {"crop_area": [0.08, 1.0], "jitter": 0.8, "jitter_strength": 1.0, "grey": 0.2, "blur": 0.5},
            "normalisation": "none",
            "epochs": 100,
            "batch_size": 4096,
            "optimizer": {**_GOOGLE_LARS, "lr": 0.075, "weight_decay": 1e-4},
            "schedule": {"lr_scaling": "sqrt", "warmup_epochs": 10.0, "decay": "cosine"},
        },
        evaluation=_evaluation(1.6, 1e-6, 90, batch_size=4096),
    ),
    _finetune(1, 57.9, 64.5),
    _finetune(10, 68.4, 72.1),
    Recipe(
        name="simclrv2-distill",
        kind="distill",
        description="SimCLRv2: distillation of a fine-tuned network from its softened predictions, without labels.",
        source="SimCLRv2 (arXiv:2006.10029), sections 2 and 3",
        hardware="one GPU or more for ImageNet",
        duration="400 epochs",
        result="ImageNet, ResNet-50 distilled from ResNet-152 3× with selective kernels: 73.9 % with 1 % of the labels,"
        " 77.5 % with 10 %",
        config={
            "temperature": 1.0,
            "label_weight": 0.0,
            "backbone": {"name": "resnet50", "width": 1.0, "layout": "google"},
            "views": _CROP_AND_FLIP,
            "epochs": 400,
            "batch_size": 4096,
            "optimizer": {**_GOOGLE_LARS, "lr": 0.1, "weight_decay": 1e-4},
            "schedule": {"lr_scaling": "sqrt", "warmup_epochs": 20.0, "decay": "cosine"},
        },
    ),
    Recipe(
        name="simclr-imagenet5-as-published",
        kind="pretrain",
        description="A minimal SimCLR on five ImageNet classes (1,250 training and 250 evaluation images): no crop, no"
        " batch norm in the head, plain SGD. Its evaluation uses a tenth of the labels; set `layer` to head1, head2 or"
        " projection to evaluate the layers of the head.",
        source="a published Jupyter notebook: ResNet-50 at 224 px from random weights, cosine over 1,000 of 3,800"
        " steps; the probability of grey views is ours",
        hardware="one GPU",
        duration="200 epochs",
        result="52.8 % linear with 10 % of the labels; 64.4 % supervised with all",
        config={
            **_IMAGENET5,
            "method": {
                "name": "simclr",
                "temperature": 0.1,
                "projector": [256, 128, 50],
                "projector_batch_norm": False,
            },
            "views": {"crop_area": None, "jitter": 0.8, "jitter_strength": 1.0, "grey": 0.2},
            "optimizer": {"name": "sgd", "lr": 0.1, "weight_decay": 0.0, "momentum": 0.0, "nesterov": False},
            "schedule": {"lr_scaling": "none", "warmup_epochs": 0.0, "decay": "cosine", "decay_steps": 1000},
        },
        evaluation={"label_fractions": [0.1], "draws": 5},
    ),
    Recipe(
        name="simclr-imagenet5",
        kind="pretrain",
        description="SimCLR on five ImageNet classes with recommended settings: crops, batch norm in the head, warm-up"
        " and a cosine over the whole run. Its evaluation uses a tenth of the labels.",
        source="simclr-imagenet5-as-published, with the views, head and schedule of SimCLR's paper",
        hardware="one GPU",
        duration="200 epochs",
        result="baseline: 52.8 % linear with 10 % of the labels, and 64.4 % supervised with all",
        config={
            **_IMAGENET5,
            "method": {"name": "simclr", "temperature": 0.1, "projector": [2048, 128]},
            "views": {"crop_area": [0.2, 1.0], "jitter": 0.8, "jitter_strength": 1.0, "grey": 0.2, "blur": 0.5},
            "optimizer": {"name": "sgd", "lr": 0.12, "weight_decay": 1e-4, "momentum": 0.9, "nesterov": True},
            "schedule": {"lr_scaling": "linear", "warmup_epochs": 10.0, "decay": "cosine"},
        },
        evaluation={"label_fractions": [0.1], "draws": 5},
    ),
    Recipe(
        name="simclr-imagenet5-supervised",
        kind="supervised",
        description="Supervised baseline of simclr-imagenet5: its network trained with all labels of the five ImageNet"
        " classes.",
        source="simclr-imagenet5-as-published, which includes such a run; views, optimizer and schedule are ours",
        hardware="one GPU",
        duration="200 epochs",
        result="64.4 % in the source",
        config={
            **_IMAGENET5,
            "views": _CROP_AND_FLIP,
            "optimizer": {"name": "sgd", "lr": 0.1, "weight_decay": 1e-4, "momentum": 0.9, "nesterov": True},
            "schedule": {"lr_scaling": "linear", "warmup_epochs": 10.0, "decay": "cosine"},
        },
    ),
    Recipe(
        name="simclr-cifar10-r50-imagenet-init",
        kind="pretrain",
        description="SimCLR on CIFAR-10, initialized with torchvision's first ImageNet weights of ResNet-50. Without a"
        f" test split it is evaluated on a held-out fifth of the training images{_IN_PRETRAINING}.",
        source="a published PyTorch project: flip, crop and jitter, batch 128, LARS 0.2, 10 warm-up epochs, then"
        " cosine; the strength of the jitter, the temperature, the head and the weight decay are ours",
        hardware="one GPU",
        duration="100 epochs",
        result="about 85 % linear",
        config={
            "method": {"name": "simclr", "temperature": 0.5, "projector": [2048, 128]},
            "backbone": {"name": "resnet50", "width": 1.0, "stem": "imagenet", "weights": "imagenet_v1"},
            "image_size": 32,
            "phases": [{"until": 1.0, "image_size": 32}],
            "views": {"crop_area": [0.08, 1.0], "flip": 0.5, "jitter": 0.8, "jitter_strength": 0.5, "grey": 0.0},
            "normalisation": "dataset",
            "epochs": 100,
            "batch_size": 128,
            "optimizer": {**_GOOGLE_LARS, "lr": 0.2, "weight_decay": 1e-4},
            "schedule": {"lr_scaling": "none", "warmup_epochs": 10.0, "decay": "cosine"},
        },
        evaluation={"test_fraction": 0.2},
    ),
    Recipe(
        name="infonce-cifar10-tanh",
        kind="pretrain",
        description="InfoNCE between the two views only, on CIFAR-10 scaled to [-1, 1]: crops of 28 pixels resized to"
        " 32, flips, additive brightness, and contrast of 0.1 to 0.9. The source omits the flip and the contrast by a"
        " typo and normalises over a missing axis; this recipe corrects both.",
        source="a published TensorFlow notebook; optimizer, batch size and length are ours, and contrast blends with"
        " the mean grey value",
        hardware="one GPU",
        duration="100 epochs",
        result="none published",
        config={
            "method": {
                "name": "simclr",
                "temperature": 0.5,
                "projector": [256, 128],
                "projector_batch_norm": False,
                "same_view_negatives": False,
            },
            "backbone": {"name": "resnet50", "width": 1.0, "stem": "imagenet"},
            "image_size": 32,
            "phases": [{"until": 1.0, "image_size": 32}],
            "views": {
                "crop_area": [0.765625, 0.765625],
                "crop_ratio": [1.0, 1.0],
                "jitter": 1.0,
                "jitter_strength": 1.0,
                "brightness": 0.5,
                "brightness_added": True,
                "contrast_range": [0.1, 0.9],
                "saturation": 0.0,
                "hue": 0.0,
                "grey": 0.0,
            },
            "normalisation": "half",
            "epochs": 100,
            "batch_size": 256,
            "optimizer": {"name": "adamw", "lr": 1e-3, "weight_decay": 0.0},
            "schedule": {"lr_scaling": "none", "warmup_epochs": 0.0, "decay": "none"},
        },
    ),
    Recipe(
        name="simsiam-flowers-as-published",
        kind="pretrain",
        description="SimSiam on 3,670 flower photographs of five classes: flips, translations, blur, colour jitter and"
        " grey, no crop; ReLU before batch norm. Without a test or val split it is evaluated on a held-out 15 %"
        f" of the images{_IN_PRETRAINING}.",
        source="a published Jupyter notebook: ResNet-50 at 224 px from random weights, cosine over 500 steps; the"
        " probabilities of jitter and blur are ours",
        hardware="one GPU",
        duration="50 or 75 epochs",
        result="45.6 % linear after 50 epochs, 44.9 % after 75; supervised ImageNet features 48.4 %, from scratch"
        " 63.6 %",
        config={
            **_FLOWERS,
            "backbone": {**_FLOWERS["backbone"], "zero_init_residual": False},
            "method": {
                "name": "simsiam",
                "projector": [2048, 2048],
                "projector_relu_first": True,
                "predictor_hidden": 512,
                "predictor_constant_lr": False,
            },
            "views": {
                "crop_area": None,
                "translation": 0.125,
                "blur": 0.5,
                "jitter": 0.8,
                "jitter_strength": 0.5,
                "grey": 0.2,
            },
            "epochs": 50,
            "optimizer": {"name": "sgd", "lr": 0.01, "weight_decay": 0.0, "momentum": 0.6, "nesterov": False},
            "schedule": {"lr_scaling": "none", "warmup_epochs": 0.0, "decay": "cosine", "decay_steps": 500},
        },
        evaluation={"test_fraction": 0.15},
    ),
    Recipe(
        name="simsiam-flowers",
        kind="pretrain",
        description="SimSiam on flower photographs with recommended settings: crops, the paper's heads, learning rate"
        " and schedule, and a longer run.",
        source="simsiam-flowers-as-published, with the views, heads and schedule of SimSiam's paper",
        hardware="one GPU",
        duration="200 epochs",
        result="baseline: 45.6 % linear and 63.6 % supervised from scratch; the recipe simsiam-cpu reaches 76 % with a"
        " small network in ten minutes on two CPU cores",
        config={
            **_FLOWERS,
            "method": {"name": "simsiam", "projector": [2048, 2048, 2048], "predictor_hidden": 512},
            "views": {"crop_area": [0.2, 1.0], "jitter": 0.8, "jitter_strength": 0.5, "grey": 0.2, "blur": 0.5},
            "epochs": 200,
            "optimizer": {"name": "sgd", "lr": 0.05, "weight_decay": 1e-4, "momentum": 0.9, "nesterov": False},
            "schedule": {"lr_scaling": "linear", "warmup_epochs": 10.0, "decay": "cosine"},
        },
        evaluation={"test_fraction": 0.15},
    ),
]
