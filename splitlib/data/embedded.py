"""Stand-ins that need no download, as ``datasets.Dataset`` with the schema of the task they stand in for."""

from __future__ import annotations

import io
from functools import cache

import datasets
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from splitlib.data import acceptability, entailment
from splitlib.data.tasks import Task
from splitlib.errors import ConfigError

DIGITS_EVAL = 360
DIGITS_SIZE = 32
DIGITS_LEVELS = 16  # the 8x8 originals count inked pixels, 0 to 16

ACCEPTABILITY_LABELS = ["unacceptable", "acceptable"]
ENTAILMENT_LABELS = ["entailment", "not_entailment"]

Splits = tuple[datasets.Dataset, datasets.Dataset]


def load_embedded(task: Task) -> Splits:
    """Return the training and evaluation rows that stand in for ``task``; the same in every process.

    Raises:
        ConfigError: a text task has no stand-in.
    """
    if task.kind == "vision":
        return digits(task)
    corpora = {"cola": acceptability_corpus, "rte": entailment_corpus}
    if task.name not in corpora:
        raise ConfigError(f"no embedded data stands in for {task.title}; train on real data: --data real")
    return corpora[task.name]()


def digits(task: Task) -> Splits:
    """Return scikit-learn's handwritten digits as RGB images of 32x32 pixels: 1,437 to train on, 360 to evaluate.

    The split is fixed and keeps the ten classes' shares. The columns have the names of ``task``'s.
    """
    from sklearn.model_selection import train_test_split

    (image,) = task.inputs
    features = datasets.Features(
        {image: datasets.Image(), task.label: datasets.ClassLabel(names=[str(digit) for digit in range(10)])}
    )
    pictures, labels = _digits()
    train, evaluation = train_test_split(range(len(labels)), test_size=DIGITS_EVAL, stratify=labels, random_state=0)

    def rows(indices: list[int]) -> datasets.Dataset:
        columns = {image: [pictures[i] for i in indices], task.label: [labels[i] for i in indices]}
        return datasets.Dataset.from_dict(columns, features=features)

    return rows(train), rows(evaluation)


@cache
def _digits() -> tuple[list[dict[str, bytes]], list[int]]:
    from sklearn.datasets import load_digits

    raw = load_digits()
    grey = np.round(raw.images * (255 / DIGITS_LEVELS)).astype(np.uint8)
    return [{"bytes": _bitmap(pixels)} for pixels in grey], raw.target.tolist()


def _bitmap(pixels: NDArray[np.uint8]) -> bytes:
    """Encode greyscale pixels as an enlarged RGB bitmap: uncompressed, so its bytes do not change with the encoder."""
    file = io.BytesIO()
    picture = Image.fromarray(pixels).resize((DIGITS_SIZE, DIGITS_SIZE), Image.Resampling.BILINEAR)
    picture.convert("RGB").save(file, format="BMP")
    return file.getvalue()


def acceptability_corpus() -> Splits:
    """Return the generated corpus that stands in for CoLA: 2,000 sentences to train on, 400 to evaluate."""
    corpus = acceptability.corpus()
    features = _text_features(["sentence"], ACCEPTABILITY_LABELS)
    return _text_rows(corpus["train"], features), _text_rows(corpus["validation"], features)


def entailment_corpus() -> Splits:
    """Return the generated corpus that stands in for RTE: 1,000 pairs to train on, 300 to evaluate."""
    corpus = entailment.corpus()
    features = _text_features(["sentence1", "sentence2"], ENTAILMENT_LABELS)
    return _text_rows(corpus["train"], features), _text_rows(corpus["validation"], features)


def _text_features(sentences: list[str], labels: list[str]) -> datasets.Features:
    columns = {name: datasets.Value("string") for name in sentences}
    return datasets.Features({**columns, "label": datasets.ClassLabel(names=labels), "idx": datasets.Value("int32")})


def _text_rows(rows: tuple[tuple[str | int, ...], ...], features: datasets.Features) -> datasets.Dataset:
    columns = zip(*((*row, index) for index, row in enumerate(rows)), strict=True)
    return datasets.Dataset.from_dict(dict(zip(features, map(list, columns), strict=True)), features=features)
