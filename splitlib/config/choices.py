"""What a config may name, and what it takes where it names nothing."""

from __future__ import annotations

from splitlib.errors import ConfigError

VISION_TASKS = ("cifar10", "cifar100", "food101")
TEXT_TASKS = ("cola", "rte")
VISION_MODELS = ("mobilenet_v2", "mobilenet_v2_tiny")
PARTITIONS = {
    "vision": (
        "none",
        "first_last",
        "first_two_last_two",
        "conv_insert_type_1",
        "conv_insert_type_2",
        "conv_insert_type_3",
        "conv_insert_wide",
        "conv_insert_counted",
        "even",
    ),
    "text": ("none", "condition_1", "condition_2", "condition_3", "even"),
}
# Settings that only one kind of task has.
KIND_ONLY = {
    "vision": ("image_size", "images", "batch_norm"),
    "text": ("max_length", "lora_rank", "lora_alpha", "insert", "insert_options", "padding"),
}
# Any number of stages, for the devices of one machine; the documents name none of these.
FREE_PARTITIONS = ("balanced", "custom")
DEFAULT_STAGES = 3  # client head, server body, client tail
# The layers of splitlib.models.inserted that go around the cuts of a text model.
INSERTS = ("none", "linear", "decaying_linear")
# The codecs of splitlib.compressors.registry.
COMPRESSORS = ("none", "cast", "uniform", "sort", "power_iteration", "fast", "deadzone", "topk")
# Their options, and those of inserts, that are fractions: 1 means 1.0 there, and both make one key.
FLOAT_OPTIONS = ("step", "ratio", "rate", "l1", "token_rate", "share", "random")
TWO_SIDED = ("simulated", "two_machines")  # engines with a client and a server
ENGINES = ("in_process", *TWO_SIDED, "data_parallel")
SCHEDULES = ("gpipe", "1f1b")
DEFAULT_MODEL = {"vision": "mobilenet_v2", "text": "roberta-base"}
DEFAULT_PARTITION = {"vision": "first_last", "text": "condition_1"}
DEFAULT_IMAGE_SIZE = 224
DEFAULT_MAX_LENGTH = 128
STRIDE = 32  # of MobileNetV2: pixels that one value of its last maps stands for
DEFAULT_MOMENTUM = 0.0
DEFAULT_BATCH_NORM = "micro_batch"
DEFAULT_ADAM_EPS = 1e-8
DEFAULT_ADAM_BETA2 = 0.999
POLYNOMIAL_END = 1e-7  # the learning rate at which transformers' polynomial schedule ends

Scalar = int | float | str


def task_kind(task: str) -> str:
    """Return ``"vision"`` or ``"text"``.

    >>> task_kind("rte")
    'text'
    """
    if task in VISION_TASKS:
        return "vision"
    if task in TEXT_TASKS:
        return "text"
    raise ConfigError(f"unknown task {task!r}; choose from {', '.join(VISION_TASKS + TEXT_TASKS)}")
