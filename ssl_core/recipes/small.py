"""Recipes for small networks on a CPU: a few thousand photographs, or 8×8 digits."""

from ssl_core.recipes.recipe import Recipe

_CPU_PHASES = [
    {"until": 0.5, "image_size": 16},
    {"until": 0.8, "image_size": 20},
    {"until": 0.95, "image_size": 24},
    {"until": 1.0, "image_size": 32},
]
_CPU_NETWORK = {"name": "resnet10", "width": 0.5, "stem": "cifar"}
_SMALL_PHOTOS = {"crop_area": [0.2, 1.0], "jitter_strength": 0.5, "grey": 0.2, "blur": 0.0}

_DIGITS_VIEWS = {
    "crop_area": None,
    "flip": 0.0,
    "jitter": 0.0,
    "grey": 0.0,
    "rotation": 12.0,
    "shear": 0.2,
    "scale": [0.6, 1.1],
    "translation": 0.1,
    "gamma": 0.3,
    "noise": 0.05,
}
_DIGITS = {
    "image_size": 8,
    "phases": [{"until": 1.0, "image_size": 8}],
    "views": _DIGITS_VIEWS,
    "evaluation": {"knn_k": 10},
}

SMALL = [
    Recipe(
        name="simclr-cpu",
        kind="pretrain",
        description="The default on a CPU: SimCLR on small photographs such as CIFAR-10, with progressive image sizes.",
        source="SimCLR (arXiv:2002.05709) with temperature 0.2, on ResNet-10 of half width",
        hardware="two CPU cores with bf16 (AVX-512 or AMX)",
        duration="10 minutes",
        result="CIFAR-10, 10,000 training images (subset 10000): 62 % kNN and 69 % linear, without bf16 55 and 63; raw"
        " pixels 35 and 39",
        config={
            "method": {"name": "simclr", "temperature": 0.2, "projector": [256, 128]},
            "backbone": _CPU_NETWORK,
            "image_size": 32,
            "phases": _CPU_PHASES,
            "views": _SMALL_PHOTOS,
            "minutes": 10.0,
            "batch_size": 256,
            "optimizer": {"name": "muon", "lr": 0.1, "weight_decay": 0.1, "momentum": 0.9, "vector_lr": 0.12},
            "schedule": {"lr_scaling": "linear", "warmup_epochs": "auto", "decay": "cosine"},
        },
    ),
    Recipe(
        name="simsiam-cpu",
        kind="pretrain",
        description="SimSiam on a CPU, for a few thousand photographs at 64 px. Because the run is short, the learning"
        " rate is high and residual blocks are not initialized to the identity.",
        source="SimSiam (arXiv:2011.10566), CIFAR settings (appendix D), on ResNet-10 of half width",
        hardware="two CPU cores with bf16 (AVX-512 or AMX)",
        duration="10 minutes",
        result="2,934 flower photographs: 72 % kNN and 76 % linear of five classes, no collapse; raw pixels 41 and 46."
        " Without bf16 ten minutes are too short.",
        config={
            "method": {"name": "simsiam"},
            "backbone": {**_CPU_NETWORK, "stem": "cifar_stride2", "zero_init_residual": False},
            "image_size": 64,
            "phases": [
                {"until": 0.4, "image_size": 32},
                {"until": 0.8, "image_size": 48},
                {"until": 1.0, "image_size": 64},
            ],
            "views": _SMALL_PHOTOS,
            "minutes": 10.0,
            "batch_size": 128,
            "optimizer": {"name": "sgd", "lr": 0.4, "weight_decay": 5e-4, "momentum": 0.9, "nesterov": True},
            "schedule": {"lr_scaling": "linear", "warmup_epochs": "auto", "decay": "cosine"},
        },
    ),
    Recipe(
        name="simclr-digits",
        kind="pretrain",
        description="SimCLR on 8×8 grey digits, with views that preserve the digit: no flip, crop or colour jitter.",
        source="scikit-learn's digits; views and temperature are ours",
        hardware="one CPU core",
        duration="about 35 seconds for 1,000 images",
        result="1,000 training images: linear with 10 labels about 88 % (raw pixels 63 %), kNN with k 10 about 98 %",
        config={
            "method": {"name": "simclr", "temperature": 0.5},
            "backbone": {"name": "resnet10", "width": 0.25, "stem": "cifar"},
            "epochs": 100,
            "batch_size": 128,
            "optimizer": {"name": "sgd", "lr": 0.5, "weight_decay": 5e-4},
            **_DIGITS,
        },
    ),
    Recipe(
        name="simsiam-digits",
        kind="pretrain",
        description="SimSiam on 8×8 grey digits, with the views of simclr-digits. Because the run is short, the"
        " learning rate is high and residual blocks are not initialized to the identity.",
        source="scikit-learn's digits; head and learning rate are ours",
        hardware="one CPU core",
        duration="about 35 seconds for 1,000 images",
        result="1,000 training images: no collapse; linear with 10 labels about 89 % (raw pixels 63 %)",
        config={
            "method": {"name": "simsiam", "projector": [256, 256], "predictor_hidden": 64},
            "backbone": {"name": "resnet10", "width": 0.25, "stem": "cifar", "zero_init_residual": False},
            "epochs": 60,
            "batch_size": 64,
            "optimizer": {"name": "sgd", "lr": 1.6, "weight_decay": 5e-4},
            **_DIGITS,
        },
    ),
]
