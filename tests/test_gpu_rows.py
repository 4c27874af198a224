"""The rows for a GPU: the document's settings, and bytes that were never tried."""

import torch

from splitlib.capture import tensors_at_cuts
from splitlib.compressors import decode, make_compressor
from splitlib.experiment import prepare
from splitlib.gpu_rows import timed_rows, trained_rows
from splitlib.profiles import DOCUMENT_SETTINGS, get_profile

CPU = torch.device("cpu")


def test_rows_have_the_settings_of_the_ablation():
    rows = trained_rows()
    assert len({config.key for config in rows.values()}) == len(rows)
    for config in rows.values():
        assert (config.epochs, config.batch_size, config.lr, config.scheduler) == (40, 256, 0.01, "cosine")
        assert (config.images, config.image_size, config.precision) == ("resident", 224, "fp32")
        real = get_profile("paper").scale(config)
        assert real == config.replace(data="real"), "paper changes the data's source alone"
    assert all(config.batch_size == 64 for config in timed_rows().values())


def test_inserted_convolutions_with_codes_are_below_a_twentieth_of_the_bytes():
    """One step on 8 random images of the paper's size."""
    shared = {"weights": "random", "chunks": 1, "batch_size": 8, "train_samples": 8, "eval_samples": 1}
    images, labels = torch.randn(8, 3, 224, 224), torch.zeros(8, dtype=torch.int64)
    shares = {}
    for label in ("conv_insert_type_2", "conv_insert_type_2, cube_root 8"):
        trainer = prepare(trained_rows()[label].replace(**shared), None, CPU)
        trainer.step((images,), labels)
        traffic = trainer.engine.traffic
        shares[label] = (traffic.activation_bytes + traffic.gradient_bytes) / traffic.uncompressed_bytes
    assert shares["conv_insert_type_2, cube_root 8"] < 1 / 50 < 1 / 20 < shares["conv_insert_type_2"] < 0.07


def test_two_bits_are_split_where_real_tensors_lose_less(real_hub):
    """Four bins of one level err less than two of two, forward and back, at both cuts."""
    config = get_profile("real").scale(DOCUMENT_SETTINGS["cifar10"], image_size=96, batch_size=16, train_samples=64)
    tensors = tensors_at_cuts(config, device="cpu")

    def error(x: torch.Tensor, **bits: int) -> float:
        codec = make_compressor("sort", edges="cube_root", **bits)
        return float((decode(codec.encode(x)) - x).square().mean() / x.var())

    chosen = trained_rows()["cube_root 2"].compressor_options
    assert (chosen["level_bits"], chosen["bin_bits"]) == (0, 2)
    ratios = {
        name: error(x, level_bits=0, bin_bits=2) / error(x, level_bits=1, bin_bits=1) for name, x in tensors.items()
    }
    assert len(ratios) == 4 and max(ratios.values()) < 0.9, ratios
