"""What a replica times: the parts of a batch are apart, on inputs that the models take."""

import torch

from splitlib.measuring import replicas
from splitlib.measuring.breakdown import Case
from splitlib.pipeline.data_parallel import joined
from splitlib.pipeline.processes import MEETING


def test_what_the_exchange_adds_is_apart_from_the_backward_pass(tmp_path, monkeypatch):
    """On a clock whose laps take 1, 3, 5 ... s: first a batch without an exchange, then the one that counts."""
    case, readings = Case(model="roberta_tiny", batch_size=4, size=8, optimizer="adamw"), iter(range(99))
    monkeypatch.setattr(replicas, "_now", lambda: next(readings) ** 2)
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", MEETING: str(tmp_path / "meeting")}.items():
        monkeypatch.setenv(name, value)
    with joined(1, "cpu") as group:
        (bench,) = replicas._benches([case], group, [torch.device("cpu")], torch.get_num_threads())
        bench.batch(counts=True)
    found = {name: values[0] for name, values in bench.seconds.items()}
    assert found == {"transfer": 9, "forward": 11, "backward": 5, "all_reduce": 13 - 5, "optimizer": 15}


def test_inputs_are_what_the_models_take():
    (images,), labels = replicas._example(Case(model="vgg13", batch_size=3, size=32))
    assert images.shape == (3, 3, 32, 32) and labels.shape == (3,)
    (ids, mask), _ = replicas._example(Case(model="roberta-base", batch_size=2, size=16))
    assert ids.shape == mask.shape == (2, 16) and ids.dtype == torch.long
