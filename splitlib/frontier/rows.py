"""The rows of the study: what each changes of a task's settings, at which size, and how often it runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from splitlib.config import RunConfig
from splitlib.experiment import sweep
from splitlib.profiles import DOCUMENT_SETTINGS, Profile
from splitlib.results import RunRecord

TASKS = ("cola", "cifar10")
GOAL = 1 / 20
"""Of the bytes: the ratio at which nothing should be lost."""
NONE = "none"
NO_PADDING = "none, no padding"
Changes = Mapping[str, Any]


_ZSTD: Changes = {"zstd": 3}
_CONTEXT: Changes = {"codes": "context"}
_TOKEN = 384  # values of one in the MiniLM that the profile `real` takes


def _least_error(bits: int, stage: Changes = _ZSTD) -> dict[str, Any]:
    """Return the options of sort quantization with one level a bin, and a lossless stage behind it."""
    return {"level_bits": 0, "bin_bits": bits, "edges": "least_error", **stage}


def _both(options: Changes, **more: Any) -> dict[str, Any]:
    """Return the changes that give activations and gradients one codec."""
    return {"compressor": "sort", "compressor_options": options, **more}


def _each(activations: Changes, gradients: Changes, codec: str = "sort", **more: Any) -> dict[str, Any]:
    """Return the changes that give activations and gradients a codec each."""
    return {**_both(activations), "gradient_compressor": codec, "gradient_options": gradients, **more}


def _by_token(activations: int, gradients: int) -> dict[str, Any]:
    """Return the changes that send real tokens, gradients in uniform levels with a range for each token."""
    uniform = {"bits": gradients, "block": _TOKEN, **_CONTEXT}
    return _each(_least_error(activations, _CONTEXT), uniform, codec="uniform", padding="skipped")


def _largest(share: float, **more: Any) -> dict[str, Any]:
    """Return the changes that send a share of the values, the largest."""
    return {"compressor": "topk", "compressor_options": {"share": share, "values": "float8", **more}}


def _steps(activations: float, gradients: float) -> dict[str, Any]:
    """Return the changes that send real tokens in even levels around zero, gradients with a step for each token."""
    codec = {"compressor": "deadzone", "compressor_options": {"step": activations}, "padding": "skipped"}
    return {**codec, "gradient_compressor": "deadzone", "gradient_options": {"step": gradients, "scale": "row"}}


def _in_context(activations: int, gradients: int, **more: Any) -> dict[str, Any]:
    """Return the changes that give both directions levels of least error, codes in the context of their neighbours."""
    return _each(_least_error(activations, _CONTEXT), _least_error(gradients, _CONTEXT), **more)


_COMMON: dict[str, Changes] = {
    NONE: {},
    "sort 8 (the documents')": _both({"level_bits": 6, "bin_bits": 2}),
    "sort 4 (the documents')": _both({"level_bits": 3, "bin_bits": 1}),
    "uniform 8": {"compressor": "uniform", "compressor_options": {"bits": 8}},
    "uniform 4": {"compressor": "uniform", "compressor_options": {"bits": 4}},
}
ROWS: Mapping[str, Mapping[str, Changes]] = {
    "cola": {
        **_COMMON,
        "uniform 4 by token": {"compressor": "uniform", "compressor_options": {"bits": 4, "block": _TOKEN}},
        NO_PADDING: {"padding": "skipped"},
        "least error 4": _both(_least_error(4)),
        "least error 5, no padding": _both(_least_error(5), padding="skipped"),
        "least error 4, no padding": _both(_least_error(4), padding="skipped"),
        "least error 3, no padding": _both(_least_error(3), padding="skipped"),
        "least error 2, no padding": _both(_least_error(2), padding="skipped"),
        "3 and 4 bits, no padding": _each(_least_error(3), _least_error(4), padding="skipped"),
        "least error 4 in context, no padding": _in_context(4, 4, padding="skipped"),
        "3 and 4 bits in context, no padding": _in_context(3, 4, padding="skipped"),
        "3 and 2 bits by token in context, no padding": _by_token(3, 2),
        "4 and 2 bits by token in context, no padding": _by_token(4, 2),
        "4 and 1 bits by token in context, no padding": _by_token(4, 1),
        "top-k 0.2 by token, no padding": _largest(0.2, scale="row") | {"padding": "skipped"},
        "steps 0.5 and 1 by token, no padding": _steps(0.5, 1.0),
        "steps 0.5 and 3 by token, no padding": _steps(0.5, 3.0),
        "steps 1 and 1.4 by token, no padding": _steps(1.0, 1.4),
        "steps 0.7 and 2 by token, no padding": _steps(0.7, 2.0),
        "2 and 4 bits, no padding": _each(_least_error(2), _least_error(4), padding="skipped"),
        "3 and 2 bits, no padding": _each(_least_error(3), _least_error(2), padding="skipped"),
        "3 and 1 bits fed back, no padding": _each(
            _least_error(3), _least_error(1), padding="skipped", error_feedback="gradients"
        ),
        "change 2, no padding": _both(_least_error(2), padding="skipped", coding="change"),
        "change, 2 and 4 bits, no padding": _each(_least_error(2), _least_error(4), padding="skipped", coding="change"),
    },
    "cifar10": {
        **_COMMON,
        "least error 5": _both(_least_error(5)),
        "least error 4": _both(_least_error(4)),
        "least error 3": _both(_least_error(3)),
        "least error 2": _both(_least_error(2)),
        "6 and 2 bits": _each(_least_error(6), _least_error(2)),
        "5 and 4 bits": _each(_least_error(5), _least_error(4)),
        "5 and 3 bits": _each(_least_error(5), _least_error(3)),
        "8 and 2 bits in context": _in_context(8, 2),
        "7 and 2 bits in context": _in_context(7, 2),
        "6 and 2 bits in context": _in_context(6, 2),
        "5 and 3 bits in context": _in_context(5, 3),
        "6 bits in context and steps of 2": _each(_least_error(6, _CONTEXT), {"step": 2.0}, codec="deadzone"),
        "5 and 2 bits": _each(_least_error(5), _least_error(2)),
        "5 and 1 bits fed back": _each(_least_error(5), _least_error(1), error_feedback="gradients"),
        "2 and 4 bits": _each(_least_error(2), _least_error(4)),
        "3 and 2 bits": _each(_least_error(3), _least_error(2)),
        "3 and 4 bits in blocks": _each(_least_error(3), {"bits": 4, "block": 256, "zstd": 3}, codec="uniform"),
        "3 and 1 bits fed back": _each(_least_error(3), _least_error(1), error_feedback="gradients"),
        "change 2": _both(_least_error(2), coding="change"),
        "change, 2 and 4 bits": _each(_least_error(2), _least_error(4), coding="change"),
        "top-k 0.1": _largest(0.1),
        "conv insert 0.07": {"partition": "conv_insert_type_2"},
        "conv insert 0.07, least error 4": _both(_least_error(4), partition="conv_insert_type_2"),
    },
}
"""By task and label, what a row changes of the task's settings. Two numbers are activations' and gradients' bits."""


SIZES: Mapping[str, Mapping[str, Changes]] = {
    "quick": {"cola": {"epochs": 3, "chunks": 2}, "cifar10": {"epochs": 2, "chunks": 2}},
    # Few steps need larger ones, and batch norm needs more than the 8 images of the document's micro-batch for that.
    "real": {"cifar10": {"image_size": 96, "epochs": 3, "chunks": 2, "lr": 0.03}},
}
"""By profile and task, what a study of so many rows changes of the profile's sizes."""
REPEATED: Mapping[str, int] = {
    NONE: 8,
    NO_PADDING: 3,
    "8 and 2 bits in context": 5,
    "7 and 2 bits in context": 5,
    "6 and 2 bits": 5,
    "6 and 2 bits in context": 3,
    "5 and 3 bits in context": 5,
    "5 and 2 bits": 5,
    "5 and 3 bits": 5,
    "5 and 4 bits": 5,
    "least error 5": 3,
    "least error 4": 3,
    "least error 5, no padding": 3,
    "least error 4, no padding": 3,
    "least error 4 in context, no padding": 3,
    "4 and 2 bits by token in context, no padding": 3,
    "4 and 1 bits by token in context, no padding": 3,
    "steps 0.5 and 1 by token, no padding": 5,
    "steps 0.7 and 2 by token, no padding": 5,
    "3 and 4 bits, no padding": 5,
    "3 and 4 bits in context, no padding": 3,
    "3 and 2 bits by token in context, no padding": 5,
    "least error 3, no padding": 5,
    "2 and 4 bits, no padding": 3,
    "change, 2 and 4 bits, no padding": 3,
}
"""How often the rows run that decide whether the goal is met, or what changes are worth: the closer, the more."""


def configs(task: str) -> dict[str, RunConfig]:
    """Return the rows of a task at the documents' own settings; a profile and :data:`SIZES` scale them.

    >>> configs("cola")["least error 3, no padding"].padding
    'skipped'
    """
    base = DOCUMENT_SETTINGS[task]
    return {label: base.replace(**changes) for label, changes in ROWS[task].items()}


def sizes(profile: str, task: str) -> Changes:
    """Return what the study changes of a profile's sizes for a task."""
    return SIZES.get(profile, {}).get(task, {})


def recorded(task: str, profile: Profile) -> dict[str, list[RunRecord]]:
    """Return the records that exist of a task's rows at a profile, by label, in the order of the seeds."""
    changes = sizes(profile.name, task)
    scaled = {label: profile.scale(config, **changes) for label, config in configs(task).items()}
    return sweep(scaled, seeds=max(REPEATED.values()), recorded=True)
