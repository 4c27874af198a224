"""A small English grammar: the words and phrases both embedded text corpora are built from.

Every verb is regular and every noun a person, so number, gender and the verb's form are all there is to get right.
"""

from __future__ import annotations

import random
from typing import NamedTuple


class Noun(NamedTuple):
    """A noun in both numbers, and the reflexive pronoun its singular binds."""

    singular: str
    plural: str
    reflexive: str


class NounPhrase(NamedTuple):
    """A phrase such as "the tall kings near the aunt" and what the rest of the sentence must agree with."""

    text: str
    plural: bool
    noun: Noun

    @property
    def reflexive(self) -> str:
        """The reflexive pronoun it binds."""
        return "themselves" if self.plural else self.noun.reflexive


NOUNS = (
    Noun("boy", "boys", "himself"),
    Noun("king", "kings", "himself"),
    Noun("uncle", "uncles", "himself"),
    Noun("girl", "girls", "herself"),
    Noun("queen", "queens", "herself"),
    Noun("aunt", "aunts", "herself"),
)
REFLEXIVES = ("himself", "herself", "themselves")
INTRANSITIVE = ("laugh", "smile", "wait", "sneeze", "arrive")
TRANSITIVE = ("admire", "greet", "praise", "blame", "thank")
ADJECTIVES = ("tall", "old", "young", "happy")
ADVERBS = ("today", "often", "outside")
PREPOSITIONS = ("near", "behind", "beside")


def present(verb: str, plural: bool) -> str:
    """Return the present tense that agrees with the subject's number.

    >>> present("laugh", plural=False), present("laugh", plural=True)
    ('laughs', 'laugh')
    """
    return verb if plural else verb + "s"


def past(verb: str) -> str:
    """Return the past tense, which is the participle too.

    >>> past("smile"), past("wait")
    ('smiled', 'waited')
    """
    return verb + ("d" if verb.endswith("e") else "ed")


def coin(rng: random.Random, probability: float = 0.5) -> bool:
    """Return True with this probability."""
    return rng.random() < probability


def noun_phrase(rng: random.Random, *, adjective: float = 0.25, attractor: float = 0.0) -> NounPhrase:
    """Draw a definite noun phrase; the attractor is a second noun between the subject and its verb."""
    plural = coin(rng)
    noun = rng.choice(NOUNS)
    words = ["the", noun.plural if plural else noun.singular]
    if coin(rng, adjective):
        words.insert(1, rng.choice(ADJECTIVES))
    if coin(rng, attractor):
        words += [rng.choice(PREPOSITIONS), noun_phrase(rng, adjective=0.0).text]
    return NounPhrase(" ".join(words), plural, noun)


def sentence(*parts: str, end: str = ".") -> str:
    """Join the parts that are not empty into a sentence.

    >>> sentence("the king", "", "laughed")
    'The king laughed.'
    """
    text = " ".join(part for part in parts if part)
    return text[0].upper() + text[1:] + end
