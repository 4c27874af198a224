"""RoBERTa (Liu et al. 2019, arXiv:1907.11692) and other BERT-type encoders, with a classifier on the first token."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from splitlib.data import text
from splitlib.data.hub import locate
from splitlib.errors import DataError

# RoBERTa and its kin start counting positions behind the padding id, so they need two more than the longest input.
POSITION_OFFSET = 2
# Model types whose layers are called here exactly as their own encoder calls them, and how many positions each leaves
# unused. Others add to it what a split would lose (MPNet its position bias, RoFormer its rotations, pre-norm encoders
# their last norm), or have no such layers.
ENCODERS = {
    "bert": 0,
    "ernie": 0,
    "roberta": POSITION_OFFSET,
    "camembert": POSITION_OFFSET,
    "data2vec-text": POSITION_OFFSET,
    "xlm-roberta": POSITION_OFFSET,
}
TINY_LENGTH = 128
HEAD_MODULES = ("classifier", "pooler")


def roberta_tiny(num_labels: int) -> PreTrainedModel:
    """Return a four-layer RoBERTa of width 64 over the embedded grammar's vocabulary, with random weights."""
    config = RobertaConfig(
        vocab_size=text.vocabulary_size(),
        hidden_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=256,
        max_position_embeddings=TINY_LENGTH + POSITION_OFFSET,
        type_vocab_size=1,
    )
    config.num_labels = num_labels
    return RobertaForSequenceClassification(config)


def random_encoder(name: str, num_labels: int, *, hub: Path | None = None) -> PreTrainedModel:
    """Return the encoder ``name`` at full size with random weights: for throughput and MACs, not for accuracy.

    It maps token ids and their mask, [B, L] each, to ``.logits`` [B, classes]. roberta-base's sizes are RobertaConfig's
    own and need no download.

    Raises:
        DataError: the encoder's sizes are missing or unreadable, or it is not of BERT's type.
    """
    if name == "roberta-base":
        config = RobertaConfig(vocab_size=50265, max_position_embeddings=514, type_vocab_size=1)
    else:
        config = _from_hub(AutoConfig.from_pretrained, name, hub)
    config.num_labels = num_labels
    return _checked(AutoModelForSequenceClassification.from_config(config), name)


def pretrained_encoder(name: str, num_labels: int, *, hub: Path | None = None) -> PreTrainedModel:
    """Return the encoder ``name`` (a folder or a hub id) in float32 with a classifier for ``num_labels``.

    The classifier starts at random unless the encoder was saved with one of that size.

    Raises:
        DataError: the encoder is missing, unreadable, or not of BERT's type.
    """
    load = AutoModelForSequenceClassification.from_pretrained
    sizes = {"num_labels": num_labels, "ignore_mismatched_sizes": True}
    return _checked(_from_hub(load, name, hub, dtype=torch.float32, **sizes), name)


def _from_hub(load: Callable[..., Any], name: str, hub: Path | None, **options: Any) -> Any:
    """Call a ``from_pretrained`` on the folder or hub id ``name``, without the report of layers that start fresh."""
    source = locate(name, "models", hub)
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        return load(source, local_files_only=Path(source).is_dir(), **options)
    except Exception as error:  # transformers raises a dozen kinds for a missing, damaged or foreign model
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(
            f"encoder {name!r} could not be loaded ({reason}); name a mirror that holds it with --hub or SPLITLIB_HUB, "
            "or another --model"
        ) from error
    finally:
        transformers.logging.set_verbosity(verbosity)


def _checked(model: PreTrainedModel, name: str) -> PreTrainedModel:
    kind = model.config.model_type
    if kind not in ENCODERS:
        raise DataError(f"encoder {name!r} is of type {kind!r}; what can be split here are {', '.join(ENCODERS)}")
    return model


def longest_input(model: PreTrainedModel) -> int:
    """Return the most tokens ``model`` has positions for."""
    return int(model.config.max_position_embeddings) - ENCODERS[model.config.model_type]


def add_lora(model: PreTrainedModel, *, rank: int, alpha: int) -> PreTrainedModel:
    """Freeze ``model`` and put LoRA adapters (Hu et al. 2021, arXiv:2106.09685) on its query and value projections.

    The layers are replaced in place, so the model's structure, and with it every partition, stays. The classifier keeps
    training, as in microsoft/LoRA's GLUE scripts.
    """
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules=["query", "value"])
    inject_adapter_in_model(config, model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad = "lora_" in name or any(part in HEAD_MODULES for part in name.split("."))
    return model
