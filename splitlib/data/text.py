"""Sentences: which tokenizer a model reads with, and rows of a ``datasets.Dataset`` as tensors of token ids."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import datasets
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from torch.utils.data import Dataset
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.tokenization_utils_base import VERY_LARGE_INTEGER  # the limit of a tokenizer that has none

from splitlib.data import acceptability, entailment
from splitlib.data.hub import locate, reason
from splitlib.errors import ConfigError, DataError

# RoBERTa's special tokens at RoBERTa's ids: its positions are counted from the padding's.
SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>")


@cache
def vocabulary() -> dict[str, int]:
    """Return the id of every special token and of every word and mark in the two embedded corpora."""
    splitter = pre_tokenizers.Whitespace()
    corpora = (acceptability.corpus(), entailment.corpus())
    texts = {text for corpus in corpora for rows in corpus.values() for *texts, _ in rows for text in texts}
    words = {word for text in texts for word, _ in splitter.pre_tokenize_str(text.lower())}
    return {token: index for index, token in enumerate((*SPECIAL_TOKENS, *sorted(words)))}


def vocabulary_size() -> int:
    """Return how many embeddings a model needs for the embedded corpora."""
    return len(vocabulary())


def grammar_tokenizer() -> PreTrainedTokenizerBase:
    """Return the word-level tokenizer of the embedded grammar, framing sentences as RoBERTa does.

    >>> grammar_tokenizer().decode(grammar_tokenizer()("The king laughs.")["input_ids"])
    '<s> the king laughs . </s>'
    """
    tokenizer = Tokenizer(models.WordLevel(vocabulary(), unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[(token, vocabulary()[token]) for token in ("<s>", "</s>")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        cls_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )


def tokenizer_for(model: str, weights: str, data: str, hub: Path | None = None) -> PreTrainedTokenizerBase:
    """Return the tokenizer ``model`` reads with: its own if it is pretrained, else the embedded grammar's.

    Raises:
        ConfigError: random weights are asked to read real text.
        DataError: the pretrained model's tokenizer is missing or unreadable.
    """
    if weights == "pretrained":
        return _pretrained_tokenizer(model, hub)
    if data == "real":
        raise ConfigError(
            f"{model} with random weights cannot read real text: its vocabulary is the embedded grammar's "
            f"{vocabulary_size()} tokens; use --weights pretrained with a pretrained model, or --data embedded"
        )
    return grammar_tokenizer()


def _pretrained_tokenizer(model: str, hub: Path | None) -> PreTrainedTokenizerBase:
    source = locate(model, "models", hub)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=Path(source).is_dir())
    except Exception as error:  # transformers and tokenizers raise a dozen kinds for missing and damaged files
        raise DataError(f"the tokenizer of {model} cannot be read ({reason(error)}); fetch the model again") from error
    if tokenizer.pad_token is None:
        raise DataError(f"the tokenizer of {model} has no padding token; use a BERT-type encoder")
    return tokenizer


class Sentences(Dataset[tuple[tuple[Tensor, Tensor], int]]):
    """Rows with one or two sentences and a label as ``((input_ids, attention_mask), label)``, each [L] int64.

    Everything is tokenised once, padded and truncated to L = ``max_length``. A ``max_length`` the tokenizer cannot
    serve raises ConfigError. There are no token types, which RoBERTa, the documents' model, does not have: a BERT sees
    both sentences of a pair as its first kind, told apart by the separator alone.
    """

    def __init__(
        self,
        rows: datasets.Dataset,
        *,
        sentences: Sequence[str],
        label: str,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
    ) -> None:
        _check_length(tokenizer, max_length, pair=len(sentences) == 2)
        encoded = tokenizer(
            *(list(rows[column]) for column in sentences),
            padding="max_length",
            truncation=True,
            max_length=max_length,
            return_tensors="pt",
        )
        self.input_ids: Tensor = encoded["input_ids"]
        self.attention_mask: Tensor = encoded["attention_mask"]
        self.labels: list[int] = list(rows[label])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[tuple[Tensor, Tensor], int]:
        return (self.input_ids[index], self.attention_mask[index]), self.labels[index]


def _check_length(tokenizer: PreTrainedTokenizerBase, max_length: int, *, pair: bool) -> None:
    least = tokenizer.num_special_tokens_to_add(pair=pair) + 1 + pair
    most = tokenizer.model_max_length
    if not least <= max_length <= most:
        takes = f"at least {least}" if most >= VERY_LARGE_INTEGER else f"{least} to {most}"
        raise ConfigError(f"max_length {max_length} does not fit the tokenizer, which takes {takes} tokens")
