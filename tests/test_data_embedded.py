"""The embedded stand-ins: the real schema, the same content everywhere, and labels that need more than single words."""

import random
from collections import Counter
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import matthews_corrcoef
from sklearn.pipeline import make_pipeline
from torchvision.transforms import v2

from splitlib.config import VISION_TASKS, RunConfig
from splitlib.data import acceptability, entailment, load_task
from splitlib.data.embedded import load_embedded
from splitlib.data.tasks import TASKS
from splitlib.errors import ConfigError

DIGIT_NAMES = [str(digit) for digit in range(10)]
SCHEMAS = {
    "cifar10": {"img": datasets.Image(), "label": datasets.ClassLabel(names=DIGIT_NAMES)},
    "cifar100": {"img": datasets.Image(), "fine_label": datasets.ClassLabel(names=DIGIT_NAMES)},
    "food101": {"image": datasets.Image(), "label": datasets.ClassLabel(names=DIGIT_NAMES)},
    "cola": {
        "sentence": datasets.Value("string"),
        "label": datasets.ClassLabel(names=["unacceptable", "acceptable"]),
        "idx": datasets.Value("int32"),
    },
    "rte": {
        "sentence1": datasets.Value("string"),
        "sentence2": datasets.Value("string"),
        "label": datasets.ClassLabel(names=["entailment", "not_entailment"]),
        "idx": datasets.Value("int32"),
    },
}
SIZES = {
    "cifar10": (1437, 360),
    "cifar100": (1437, 360),
    "food101": (1437, 360),
    "cola": (2000, 400),
    "rte": (1000, 300),
}


def tiny(task: str) -> RunConfig:
    model = "mobilenet_v2_tiny" if task in VISION_TASKS else "roberta_tiny"
    return RunConfig(task=task, model=model, weights="random")


@pytest.mark.parametrize("task", TASKS)
def test_stand_in_has_the_real_schema_and_the_stated_size(task):
    splits = load_embedded(TASKS[task])
    assert [rows.features for rows in splits] == [datasets.Features(SCHEMAS[task])] * 2
    assert tuple(len(rows) for rows in splits) == SIZES[task]


@pytest.mark.parametrize(
    ("task", "fingerprint"), [("cifar10", "70019081c090"), ("cola", "cce7c6bcf67a"), ("rte", "9d70ed482e37")]
)
def test_content_is_the_same_on_every_machine(task, fingerprint):
    assert load_task(tiny(task)).fingerprint == fingerprint


@pytest.mark.parametrize(("task", "stand_in"), [("cola", "acceptability corpus"), ("food101", "digits")])
def test_label_says_what_stands_in_for_what(task, stand_in):
    sizes = "/".join(map(str, SIZES[task]))
    assert load_task(tiny(task)).label == f"embedded {stand_in} standing in for {TASKS[task].title} ({sizes})"


def test_a_task_without_a_stand_in_gets_no_other_tasks():
    """It trained on RTE's pairs, and its record said they stood in for it."""
    other = SimpleNamespace(name="mrpc", title="MRPC", kind="text")
    with pytest.raises(ConfigError, match=r"no embedded data .* MRPC; .*--data real"):
        load_embedded(other)


def test_digits_are_stratified_and_upright():
    train, evaluation = load_embedded(TASKS["cifar10"])
    shares = [np.bincount(rows["label"]) / len(rows) for rows in (train, evaluation)]
    assert np.abs(shares[0] - shares[1]).max() < 0.003
    assert (train[0]["img"].size, train[0]["img"].mode) == ((32, 32), "RGB")
    zero = np.asarray(train[train["label"].index(0)]["img"].convert("L"))
    assert zero[14:18, 14:18].mean() < zero.mean(), "a zero is empty in its middle"


def test_digits_share_no_image():
    train, evaluation = (
        rows.cast_column("img", datasets.Image(decode=False)) for rows in load_embedded(TASKS["cifar10"])
    )
    assert not {image["bytes"] for image in train["img"]} & {image["bytes"] for image in evaluation["img"]}


@pytest.mark.parametrize("images", ["each", "resident"])
def test_no_digit_is_mirrored(images):
    data = load_task(tiny("cifar10").replace(images=images))
    assert not any(isinstance(step, v2.RandomHorizontalFlip) for step in data.train.transform.transforms)
    assert data.resident is None or not data.resident.flip


@pytest.mark.parametrize("corpus", [acceptability.corpus(), entailment.corpus()], ids=["acceptability", "entailment"])
def test_no_text_occurs_twice(corpus):
    texts = [row[:-1] for split in corpus.values() for row in split]
    assert len(set(texts)) == len(texts)


def test_labels_are_balanced_as_in_the_real_data():
    for split in acceptability.corpus().values():
        assert np.mean([label for *_, label in split]) == pytest.approx(0.7)
    for split in entailment.corpus().values():
        assert np.mean([label for *_, label in split]) == pytest.approx(0.5)


@pytest.mark.parametrize("phenomenon", acceptability.PHENOMENA, ids=lambda function: function.__name__)
def test_acceptability_pairs_are_minimal(phenomenon):
    """The two halves share all words but one, or one of them has an object too many."""
    rng = random.Random(0)
    for _ in range(50):
        good, bad = (Counter(text.lower().rstrip(".?").split()) for text in phenomenon(rng))
        assert sum((good - bad).values()) <= 3 and sum((bad - good).values()) <= 3
        assert not ((good - bad) and (bad - good)) or sum((good - bad).values()) == 1


@pytest.mark.parametrize("inference", entailment.INFERENCES, ids=lambda function: function.__name__)
def test_entailment_pairs_differ(inference):
    rng = random.Random(0)
    for _ in range(50):
        entailed, other = inference(rng)
        assert entailed != other and entailed[0] != entailed[1] and other[0] != other[1]


def matthews_of_words(longest: int) -> float:
    """Matthews of a logistic regression on word sequences of up to ``longest`` words."""
    corpus = acceptability.corpus()
    (train, train_labels), (texts, labels) = (zip(*corpus[split], strict=True) for split in ("train", "validation"))
    model = make_pipeline(CountVectorizer(ngram_range=(1, longest)), LogisticRegression(max_iter=1000))
    return matthews_corrcoef(labels, model.fit(train, train_labels).predict(texts))


def test_acceptability_is_in_the_relations_not_in_the_words():
    assert abs(matthews_of_words(1)) < 0.1
    assert matthews_of_words(3) > 0.2
