"""Models as their libraries build them; weights that are missing, damaged or foreign are one clear line."""

import pytest
import torch
from torchvision.models import mobilenet_v2 as torchvision_mobilenet_v2

from splitlib.config import RunConfig
from splitlib.errors import ConfigError, DataError
from splitlib.models import build_model
from splitlib.models.mobilenet import mobilenet_v2, mobilenet_v2_tiny
from splitlib.models.roberta import add_lora, pretrained_encoder, random_encoder, roberta_tiny


@pytest.fixture
def mirror(tmp_path):
    """A mirror that holds weights of torchvision's own MobileNetV2 and a small encoder."""
    folder = tmp_path / "mirror" / "models"
    (folder / "mobilenet_v2").mkdir(parents=True)
    torch.manual_seed(7)
    torch.save(torchvision_mobilenet_v2().half().state_dict(), folder / "mobilenet_v2" / "weights.pth")
    roberta_tiny(2).save_pretrained(folder / "someone" / "small-encoder")
    (tmp_path / "mirror" / "datasets").mkdir()
    return tmp_path / "mirror"


def test_pretrained_mobilenet_keeps_every_weight_but_the_classifier(mirror):
    model = mobilenet_v2(10, weights="pretrained", hub=mirror)
    saved = torch.load(mirror / "models" / "mobilenet_v2" / "weights.pth", weights_only=True)
    ours = model.state_dict()
    for name, tensor in saved.items():
        if not name.startswith("classifier"):
            assert torch.equal(ours[name], tensor.to(ours[name].dtype)), name
    assert ours["classifier.1.weight"].shape == (10, 1280)
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_missing_damaged_and_foreign_weights(mirror):
    file = mirror / "models" / "mobilenet_v2" / "weights.pth"
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"weights\.pth is not a readable file of weights"):
        mobilenet_v2(10, weights="pretrained", hub=mirror)
    torch.save({"other": torch.zeros(1)}, file)
    with pytest.raises(DataError, match="do not fit MobileNetV2"):
        mobilenet_v2(10, weights="pretrained", hub=mirror)
    file.unlink()
    with pytest.raises(DataError, match=r"no models/mobilenet_v2/\*\.pth in the mirror"):
        mobilenet_v2(10, weights="pretrained", hub=mirror)


@pytest.mark.parametrize(
    "contents",
    [{"state_dict": {"weight": torch.zeros(1)}, "epoch": 3}, [torch.zeros(1)], {0: torch.zeros(1)}],
    ids=["training_state", "list", "numbered"],
)
def test_a_file_of_other_things_than_weights_is_one_clear_line(contents, mirror):
    torch.save(contents, mirror / "models" / "mobilenet_v2" / "weights.pth")
    with pytest.raises(DataError, match=r"weights\.pth holds other things than tensors by name; save the model's"):
        mobilenet_v2(10, weights="pretrained", hub=mirror)


@pytest.mark.parametrize("nbytes", [0, 1, 2, 3, 10, 100, 5_000])
def test_a_download_that_broke_off_is_one_clear_line(nbytes, mirror):
    for file in (mirror / "models" / "mobilenet_v2").iterdir():
        file.write_bytes(file.read_bytes()[:nbytes])
    with pytest.raises(DataError, match=r"weights\.pth is not a readable file of weights \(\S.*\); fetch it again"):
        mobilenet_v2(10, weights="pretrained", hub=mirror)


def test_a_pickle_is_not_executed(mirror, tmp_path):
    marker = tmp_path / "executed"

    class Attack:
        def __reduce__(self):
            return (marker.touch, ())

    torch.save({"features": Attack()}, mirror / "models" / "mobilenet_v2" / "weights.pth")
    with pytest.raises(DataError):
        mobilenet_v2(10, weights="pretrained", hub=mirror)
    assert not marker.exists()


def test_tiny_mobilenet_is_small_and_has_the_same_kinds_of_layers():
    def kinds(model):
        return {type(module).__name__ for module in model.modules()}

    tiny, full = mobilenet_v2_tiny(10), mobilenet_v2(10, weights="random")
    assert kinds(tiny) == kinds(full)
    assert sum(p.numel() for p in tiny.parameters()) < 0.1 * sum(p.numel() for p in full.parameters())


def test_encoder_from_a_mirror_keeps_its_weights_in_float32(mirror):
    torch.manual_seed(0)
    model = pretrained_encoder("someone/small-encoder", 3, hub=mirror)
    assert model.config.num_labels == 3
    assert all(p.dtype == torch.float32 for p in model.parameters())
    again = pretrained_encoder(str(mirror / "models" / "someone" / "small-encoder"), 3)
    assert torch.equal(
        model.base_model.embeddings.word_embeddings.weight, again.base_model.embeddings.word_embeddings.weight
    )


def test_missing_and_damaged_encoders(mirror):
    with pytest.raises(DataError) as error:
        pretrained_encoder("someone/nothing", 2, hub=mirror)
    assert "someone/nothing" in str(error.value) and "\n" not in str(error.value)
    (mirror / "models" / "someone" / "small-encoder" / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(DataError) as error:
        pretrained_encoder("someone/small-encoder", 2, hub=mirror)
    assert "someone/small-encoder" in str(error.value) and "\n" not in str(error.value)


def test_roberta_base_at_full_size_needs_no_download():
    model = random_encoder("roberta-base", 2)
    assert sum(p.numel() for p in model.parameters()) == 124_647_170  # transformers' own count with two labels


def test_lora_freezes_all_but_adapters_and_classifier():
    model = add_lora(roberta_tiny(2), rank=4, alpha=8)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    adapters = {name for name in trained if "lora_" in name}
    assert len(adapters) == 4 * 2 * 2  # layers, query and value, A and B
    assert trained - adapters == {name for name, _ in model.named_parameters() if name.startswith("classifier")}


def test_loras_scale_is_alpha_over_rank():
    model = add_lora(roberta_tiny(2), rank=4, alpha=8)
    scales = [layer.scaling["default"] for layer in model.modules() if hasattr(layer, "lora_A")]
    assert scales == [2.0] * 8


def test_lora_starts_as_the_model_itself():
    torch.manual_seed(0)
    model = roberta_tiny(2).eval()
    ids = torch.randint(4, 50, (2, 8))
    before = model(input_ids=ids).logits
    assert torch.equal(add_lora(model, rank=4, alpha=8).eval()(input_ids=ids).logits, before)


def test_more_tokens_than_positions_is_an_error():
    config = RunConfig(model="roberta_tiny", weights="random", max_length=129)
    with pytest.raises(ConfigError, match="max_length 129 is more than the 128 tokens roberta_tiny"):
        build_model(config, num_labels=2)
    assert build_model(config.replace(max_length=128), num_labels=2)(torch.ones(1, 128, dtype=torch.long) * 5)


def test_real_weights_of_the_mirror(real_hub):
    from pathlib import Path

    model = mobilenet_v2(10, weights="pretrained", hub=Path(real_hub))
    assert model.features[0][0].weight.std() > 0.05  # trained filters, not the initial ones
    encoder = pretrained_encoder("sentence-transformers/all-MiniLM-L6-v2", 2, hub=Path(real_hub))
    assert len(encoder.base_model.encoder.layer) == 6
