"""The acceptability corpus that stands in for CoLA: minimal pairs, one phenomenon of English grammar each.

The two sentences of a pair share their words, or differ in one word that is as often right as wrong elsewhere. Single
words therefore tell nothing about the label: a model has to relate the words of a sentence to each other.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache

from splitlib.data.grammar import (
    ADJECTIVES,
    ADVERBS,
    INTRANSITIVE,
    NOUNS,
    REFLEXIVES,
    TRANSITIVE,
    coin,
    noun_phrase,
    past,
    present,
    sentence,
)

SEED = 1
SIZES = {"train": 2000, "validation": 400}
# Share of unacceptable sentences; CoLA's training set has 30 %.
UNACCEPTABLE = 0.3

Pair = tuple[str, str]


def agreement(rng: random.Random) -> Pair:
    """Subject and verb, in half of the pairs with another noun between them: The kings near the aunt laugh(*s)."""
    subject, verb = noun_phrase(rng, attractor=0.5), rng.choice(INTRANSITIVE)
    adverb = rng.choice(ADVERBS) if coin(rng) else ""
    good, bad = (present(verb, plural) for plural in (subject.plural, not subject.plural))
    return sentence(subject.text, good, adverb), sentence(subject.text, bad, adverb)


def determiner(rng: random.Random) -> Pair:
    """Demonstrative and noun: These (*this) happy girls waited."""
    plural, noun = coin(rng), rng.choice(NOUNS)
    singular_form, plural_form = rng.choice([("this", "these"), ("that", "those")])
    good, bad = (plural_form, singular_form) if plural else (singular_form, plural_form)
    rest = [rng.choice(ADJECTIVES) if coin(rng) else "", noun.plural if plural else noun.singular]
    if coin(rng):
        verb = past(rng.choice(INTRANSITIVE))
        return sentence(good, *rest, verb), sentence(bad, *rest, verb)
    start = [noun_phrase(rng).text, past(rng.choice(TRANSITIVE))]
    return sentence(*start, good, *rest), sentence(*start, bad, *rest)


def reflexive(rng: random.Random) -> Pair:
    """A reflexive and the subject that binds it: The queen near the boys admired herself (*themselves)."""
    subject, verb = noun_phrase(rng, attractor=0.25), past(rng.choice(TRANSITIVE))
    wrong = rng.choice([word for word in REFLEXIVES if word != subject.reflexive])
    return sentence(subject.text, verb, subject.reflexive), sentence(subject.text, verb, wrong)


def clause_order(rng: random.Random) -> Pair:
    """Verb and object: The king praised the aunt, *the king the aunt praised."""
    subject, thing, verb = noun_phrase(rng).text, noun_phrase(rng).text, past(rng.choice(TRANSITIVE))
    bad = (subject, thing, verb) if coin(rng) else (verb, subject, thing)
    return sentence(subject, verb, thing), sentence(*bad)


def phrase_order(rng: random.Random) -> Pair:
    """Order inside the noun phrase: The tall boy smiled, *the boy tall smiled, *boy the smiled."""
    words = noun_phrase(rng, adjective=0.5).text.split()
    scrambled = [*words[:-2], words[-1], words[-2]]
    predicate = past(rng.choice(TRANSITIVE)), noun_phrase(rng).text
    rest = predicate if coin(rng) else (past(rng.choice(INTRANSITIVE)),)
    return sentence(*words, *rest), sentence(*scrambled, *rest)


def argument(rng: random.Random) -> Pair:
    """A missing object, or one too many: *The girls blamed, *the girls sneezed the king."""
    subject, thing = noun_phrase(rng).text, noun_phrase(rng).text
    if coin(rng):
        verb = past(rng.choice(TRANSITIVE))
        return sentence(subject, verb, thing), sentence(subject, verb)
    verb = past(rng.choice(INTRANSITIVE))
    return sentence(subject, verb), sentence(subject, verb, thing)


def question(rng: random.Random) -> Pair:
    """Wh-movement leaves a gap, a yes-no question has none: Whom did the boy thank (*the aunt)?"""
    subject, thing, verb = noun_phrase(rng).text, noun_phrase(rng).text, rng.choice(TRANSITIVE)
    if coin(rng):
        start = ("whom did", subject, verb)
        return sentence(*start, end="?"), sentence(*start, thing, end="?")
    start = ("did", subject, verb)
    return sentence(*start, thing, end="?"), sentence(*start, end="?")


def auxiliary(rng: random.Random) -> Pair:
    """The verb's form after an auxiliary: The uncle will wait (*waited), the uncle had waited (*wait)."""
    subject, verb = noun_phrase(rng).text, rng.choice(INTRANSITIVE)
    adverb = rng.choice(ADVERBS) if coin(rng) else ""
    helper, good, bad = ("will", verb, past(verb)) if coin(rng) else ("had", past(verb), verb)
    return sentence(subject, helper, good, adverb), sentence(subject, helper, bad, adverb)


# The weights set the difficulty: what shows in the order of the words is learnt in a few epochs, agreement in many.
PHENOMENA: dict[Callable[[random.Random], Pair], int] = {
    clause_order: 2,
    phrase_order: 2,
    question: 2,
    argument: 2,
    auxiliary: 1,
    agreement: 1,
    reflexive: 1,
    determiner: 1,
}


def _split(rng: random.Random, size: int, seen: set[str]) -> list[tuple[str, int]]:
    """Draw ``size`` new sentences: whole pairs until the unacceptable share is reached, then acceptable halves."""
    rows: list[tuple[str, int]] = []
    unacceptable = round(size * UNACCEPTABLE)
    while len(rows) < size:
        (phenomenon,) = rng.choices(list(PHENOMENA), list(PHENOMENA.values()))
        good, bad = phenomenon(rng)
        if good in seen or bad in seen:
            continue
        seen |= {good, bad}
        rows += [(good, 1), (bad, 0)] if len(rows) < 2 * unacceptable else [(good, 1)]
    rng.shuffle(rows)
    return rows


@cache
def corpus() -> dict[str, tuple[tuple[str, int], ...]]:
    """Return ``{"train": rows, "validation": rows}`` of (sentence, label), label 1 for acceptable as in CoLA.

    The same in every process; no sentence occurs twice.
    """
    rng, seen = random.Random(SEED), set[str]()
    return {split: tuple(_split(rng, size, seen)) for split, size in SIZES.items()}
