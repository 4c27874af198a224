"""The entailment corpus that stands in for RTE: minimal pairs, one kind of inference each.

A minimal pair is two (premise, hypothesis) items, the first an entailment and the second not, that differ in as little
as the kind of inference allows. Quantifiers have existential import: every king smiled, so some king smiled.
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
    TRANSITIVE,
    NounPhrase,
    coin,
    noun_phrase,
    past,
    sentence,
)

SEED = 2
SIZES = {"train": 1000, "validation": 300}
ENTAILMENT, NOT_ENTAILMENT = 0, 1

Item = tuple[str, str]


def _people(rng: random.Random, count: int) -> list[NounPhrase]:
    """Draw noun phrases that have different nouns."""
    people: dict[str, NounPhrase] = {}
    while len(people) < count:
        person = noun_phrase(rng, adjective=0.0)
        people.setdefault(person.noun.singular, person)
    return list(people.values())


def _active(agent: NounPhrase, verb: str, patient: NounPhrase) -> str:
    return sentence(agent.text, past(verb), patient.text)


def _passive(agent: NounPhrase, verb: str, patient: NounPhrase) -> str:
    return sentence(patient.text, "were" if patient.plural else "was", past(verb), "by", agent.text)


def passive(rng: random.Random) -> tuple[Item, Item]:
    """Active and passive keep who did what; with the roles swapped they do not."""
    first, second = _people(rng, 2)
    verb = rng.choice(TRANSITIVE)
    premise, hypothesis = (_active, _passive) if coin(rng) else (_passive, _active)
    text = premise(first, verb, second)
    return (text, hypothesis(first, verb, second)), (text, hypothesis(second, verb, first))


def conjunction(rng: random.Random) -> tuple[Item, Item]:
    """Either side may leave an "and" and may join an "or", not the other way round."""
    first, second, other = (person.text for person in _people(rng, 3))
    verb, one = past(rng.choice(INTRANSITIVE)), rng.choice([first, second])
    both, either = sentence(first, "and", second, verb), sentence(first, "or", second, verb)
    single, stranger = sentence(one, verb), sentence(other, verb)
    return rng.choice(
        [
            ((both, single), (either, single)),
            ((single, either), (single, both)),
            ((both, single), (both, stranger)),
        ]
    )


def negation(rng: random.Random) -> tuple[Item, Item]:
    """A positive sentence may lose its adverb, a negated one may gain one; neither may change its polarity."""
    subject, verb, adverb = noun_phrase(rng, adjective=0.0).text, rng.choice(INTRANSITIVE), rng.choice(ADVERBS)
    yes, yes_more = sentence(subject, past(verb)), sentence(subject, past(verb), adverb)
    no, no_more = sentence(subject, "did not", verb), sentence(subject, "did not", verb, adverb)
    return rng.choice(
        [
            ((yes_more, yes), (yes_more, no)),
            ((no, no_more), (no, yes_more)),
            ((yes_more, yes), (yes, yes_more)),
            ((no, no_more), (no_more, no)),
        ]
    )


def monotonicity(rng: random.Random) -> tuple[Item, Item]:
    """From the old king to the king under "some", from the king to the old king under "every" and "no"."""
    quantifier, noun = rng.choice(["some", "every", "no"]), rng.choice(NOUNS).singular
    adjective, verb = rng.choice(ADJECTIVES), past(rng.choice(INTRANSITIVE))
    wide, narrow = sentence(quantifier, noun, verb), sentence(quantifier, adjective, noun, verb)
    up, down = (narrow, wide), (wide, narrow)
    return (up, down) if quantifier == "some" else (down, up)


def quantifier(rng: random.Random) -> tuple[Item, Item]:
    """Every king, so some king; not the other way round, and never from or to no king."""
    adjective = rng.choice(ADJECTIVES) if coin(rng) else ""
    rest = (adjective, rng.choice(NOUNS).singular, past(rng.choice(INTRANSITIVE)))
    every, some, no = (sentence(word, *rest) for word in ("every", "some", "no"))
    return (every, some), rng.choice([(some, every), (no, some), (every, no)])


# The weights set the difficulty: quantifiers and negation are learnt in a few epochs, passives hardly at all.
INFERENCES: dict[Callable[[random.Random], tuple[Item, Item]], int] = {
    quantifier: 3,
    negation: 3,
    conjunction: 2,
    monotonicity: 1,
    passive: 1,
}


def _split(rng: random.Random, size: int, seen: set[Item]) -> list[tuple[str, str, int]]:
    """Draw ``size`` new items, half of them entailments."""
    rows: list[tuple[str, str, int]] = []
    while len(rows) < size:
        (inference,) = rng.choices(list(INFERENCES), list(INFERENCES.values()))
        entailed, other = inference(rng)
        if entailed in seen or other in seen:
            continue
        seen |= {entailed, other}
        rows += [(*entailed, ENTAILMENT), (*other, NOT_ENTAILMENT)]
    rng.shuffle(rows)
    return rows


@cache
def corpus() -> dict[str, tuple[tuple[str, str, int], ...]]:
    """Return ``{"train": rows, "validation": rows}`` of (premise, hypothesis, label), label 0 for entailment as in RTE.

    The same in every process; no (premise, hypothesis) occurs twice.
    """
    rng, seen = random.Random(SEED), set[Item]()
    return {split: tuple(_split(rng, size, seen)) for split, size in SIZES.items()}
