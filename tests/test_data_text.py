"""Which tokenizer reads what, and how sentences become token ids."""

import datasets
import pytest
import torch

from splitlib.config import RunConfig
from splitlib.data import acceptability, entailment, load_task, text
from splitlib.errors import ConfigError, DataError

TINY = RunConfig(task="cola", model="roberta_tiny", weights="random", max_length=24)


def rows(*sentences):
    return datasets.Dataset.from_dict({"sentence": list(sentences), "label": [1] * len(sentences)})


def encode(*sentences, max_length=8, tokenizer=None):
    tokenizer = tokenizer or text.grammar_tokenizer()
    return text.Sentences(
        rows(*sentences), sentences=["sentence"], label="label", tokenizer=tokenizer, max_length=max_length
    )


def test_special_tokens_have_robertas_ids():
    tokenizer = text.grammar_tokenizer()
    ids = (tokenizer.bos_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id)
    assert ids == (0, 1, 2, 3)
    assert len(tokenizer) == text.vocabulary_size() == len(set(text.vocabulary().values()))


def test_sentences_are_framed_padded_and_truncated():
    (short, short_mask), label = encode("The king laughs.", "The king near the aunt laughs today.")[0]
    assert text.grammar_tokenizer().convert_ids_to_tokens(short.tolist()) == [
        "<s>", "the", "king", "laughs", ".", "</s>", "<pad>", "<pad>",
    ]  # fmt: skip
    assert short_mask.tolist() == [1] * 6 + [0] * 2 and label == 1
    (long, long_mask), _ = encode("The king near the aunt laughs today.")[0]
    assert long.shape == (8,) and long[-1] == 2 and long_mask.all()


def test_a_pair_is_one_sequence():
    config = TINY.replace(task="rte")
    (input_ids, attention_mask), _ = load_task(config).train[0]
    tokens = text.grammar_tokenizer().convert_ids_to_tokens(input_ids[attention_mask.bool()].tolist())
    assert (tokens[0], tokens[-1]) == ("<s>", "</s>")
    middle = tokens.index("</s>")
    assert tokens[middle : middle + 2] == ["</s>", "</s>"] and tokens.count("</s>") == 3


@pytest.mark.parametrize("task", ["cola", "rte"])
def test_24_tokens_hold_every_embedded_text_and_know_every_word(task):
    data = load_task(TINY.replace(task=task))
    for split in (data.train, data.eval):
        assert (split.input_ids[:, -1] == 1).all(), "a text that fills all tokens may have been cut"
        assert not (split.input_ids == 3).any()
        assert torch.equal(split.attention_mask, (split.input_ids != 1).long())


def test_the_vocabulary_is_that_of_both_corpora():
    texts = [
        part for corpus in (acceptability.corpus(), entailment.corpus()) for row in corpus["train"] for part in row[:-1]
    ]
    used = {token for text_ in texts for token in text.grammar_tokenizer().tokenize(text_)}
    assert used <= set(text.vocabulary()) and len(set(text.vocabulary()) - used) <= 4 + 2


def test_random_weights_cannot_read_real_text():
    for model in ("roberta_tiny", "roberta-base"):
        with pytest.raises(ConfigError, match=f"{model} with random weights cannot read real text: its vocabulary"):
            text.tokenizer_for(model, "random", "real")
    assert text.tokenizer_for("roberta-base", "random", "embedded").get_vocab() == text.vocabulary()


@pytest.mark.parametrize(("max_length", "task", "least"), [(2, "cola", 3), (5, "rte", 6)])
def test_a_length_without_room_for_words(max_length, task, least):
    with pytest.raises(
        ConfigError, match=f"max_length {max_length} does not fit the tokenizer, which takes at least {least} tokens"
    ):
        load_task(TINY.replace(task=task, max_length=max_length))


def test_a_length_beyond_the_model(tmp_path):
    tokenizer = text.grammar_tokenizer()
    tokenizer.model_max_length = 16
    with pytest.raises(ConfigError, match="max_length 17 does not fit the tokenizer, which takes 3 to 16 tokens"):
        encode("The king laughs.", max_length=17, tokenizer=tokenizer)


def test_a_pretrained_model_brings_its_tokenizer(tmp_path):
    text.grammar_tokenizer().save_pretrained(tmp_path)
    tokenizer = text.tokenizer_for(str(tmp_path), "pretrained", "embedded")
    assert tokenizer("The king laughs.")["input_ids"] == text.grammar_tokenizer()("The king laughs.")["input_ids"]


def test_a_damaged_tokenizer_is_one_clear_line(tmp_path):
    text.grammar_tokenizer().save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(DataError, match=r"the tokenizer of .* cannot be read \(.*\); fetch the model again") as error:
        text.tokenizer_for(str(tmp_path), "pretrained", "real")
    assert "\n" not in str(error.value)


def test_a_tokenizer_without_padding_is_refused(tmp_path):
    tokenizer = text.grammar_tokenizer()
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(DataError, match="has no padding token; use a BERT-type encoder"):
        text.tokenizer_for(str(tmp_path), "pretrained", "real")
