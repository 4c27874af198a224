"""All five real tasks through ``load_dataset`` from a tiny mirror in the hub's layout, and what may go wrong."""

import shutil
import time

import datasets
import huggingface_hub
import numpy as np
import pytest
from PIL import Image

from splitlib.config import VISION_TASKS, RunConfig
from splitlib.data import load_task, locate, resolve_hub, text, train_batches
from splitlib.data.real import load_real
from splitlib.data.tasks import TASKS, get_task
from splitlib.errors import ConfigError, DataError

# What the hub's dataset cards say: folder, splits, features.
PICTURE, STRING, INT32 = datasets.Image(), datasets.Value("string"), datasets.Value("int32")
CARDS = {
    "cifar10": ("plain_text", "test", {"img": PICTURE, "label": datasets.ClassLabel(num_classes=10)}),
    "cifar100": (
        "cifar100",
        "test",
        {
            "img": PICTURE,
            "fine_label": datasets.ClassLabel(num_classes=100),
            "coarse_label": datasets.ClassLabel(num_classes=20),
        },
    ),
    "food101": ("data", "validation", {"image": PICTURE, "label": datasets.ClassLabel(num_classes=101)}),
    "cola": (
        "cola",
        "validation",
        {"sentence": STRING, "label": datasets.ClassLabel(names=["unacceptable", "acceptable"]), "idx": INT32},
    ),
    "rte": (
        "rte",
        "validation",
        {
            "sentence1": STRING,
            "sentence2": STRING,
            "label": datasets.ClassLabel(names=["entailment", "not_entailment"]),
            "idx": INT32,
        },
    ),
}
ROWS = {"train": 12, "test": 8, "validation": 8}
CONFIG = {
    "vision": {"model": "mobilenet_v2_tiny", "weights": "random", "image_size": 16},
    "text": {"model": "tiny/encoder", "max_length": 16},
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Keep the Arrow copies that datasets makes out of the user's cache."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def value(feature, row):
    if isinstance(feature, datasets.Image):
        return Image.fromarray(np.full((10 + row, 20, 3), 10 * row, dtype=np.uint8))
    if isinstance(feature, datasets.ClassLabel):
        return row % feature.num_classes
    return f"The king laughs {row} times." if feature == STRING else row


def write_split(hub, task, split, features, values=value):
    folder, _, _ = CARDS[task]
    count = ROWS[split]
    columns = {name: [values(feature, row) for row in range(count)] for name, feature in features.items()}
    path = hub / "datasets" / TASKS[task].repo_id / folder / f"{split}-00000-of-00001.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_dict(columns, features=datasets.Features(features)).to_parquet(path)
    return path


def write_card(hub, *tasks):
    lines = ["---", "configs:"]
    for task in tasks:
        folder, eval_split, _ = CARDS[task]
        lines += [f"- config_name: {TASKS[task].config_name}", "  data_files:"]
        lines += [f"  - {{split: {split}, path: {folder}/{split}-*}}" for split in ("train", eval_split)]
    (hub / "datasets" / TASKS[tasks[0]].repo_id / "README.md").write_text("\n".join([*lines, "---", ""]))


def write_task(hub, task):
    _, eval_split, features = CARDS[task]
    for split in ("train", eval_split):
        write_split(hub, task, split, features)
    write_card(hub, *(("cola", "rte") if task in ("cola", "rte") else (task,)))


@pytest.fixture(scope="module")
def whole_mirror(tmp_path_factory):
    """A mirror of all five tasks and of one tokenizer."""
    hub = tmp_path_factory.mktemp("hub")
    for task in CARDS:
        write_task(hub, task)
    text.grammar_tokenizer().save_pretrained(hub / "models" / "tiny" / "encoder")
    return hub


@pytest.fixture
def mirror(whole_mirror, tmp_path):
    """The mirror, for a test to damage."""
    return shutil.copytree(whole_mirror, tmp_path / "mirror")


def real(task):
    kind = "vision" if task in VISION_TASKS else "text"
    return RunConfig(task=task, data="real", batch_size=4, **CONFIG[kind])


def one_line(call, *arguments, **options):
    """The message of the DataError that a call raises."""
    with pytest.raises(DataError) as error:
        call(*arguments, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("task", TASKS)
def test_every_task_loads_from_a_mirror(whole_mirror, task):
    data = load_task(real(task), hub=whole_mirror)
    assert data.label == f"{TASKS[task].title} (real, {TASKS[task].repo_id} from a local mirror, 12/8)"
    assert (data.num_labels, data.metric) == (TASKS[task].num_labels, TASKS[task].metric)
    assert [data.train[row][1] for row in range(3)] == [row % data.num_labels for row in range(3)]
    inputs, labels = next(iter(train_batches(data, batch_size=4, seed=0, epoch=0)))
    assert [x.shape[1:] for x in inputs] == ([(3, 16, 16)] if task in VISION_TASKS else [(16,), (16,)])
    assert labels.shape == (4,)


@pytest.mark.parametrize("task", TASKS)
def test_the_table_of_tasks_agrees_with_the_cards(whole_mirror, task):
    for rows in load_real(TASKS[task], whole_mirror):
        assert rows.features == datasets.Features(CARDS[task][2])


def test_the_environment_names_the_mirror(whole_mirror, monkeypatch):
    monkeypatch.setenv("SPLITLIB_HUB", str(whole_mirror))
    assert resolve_hub() == whole_mirror
    assert locate("nyu-mll/glue", "datasets") == str(whole_mirror / "datasets" / "nyu-mll" / "glue")
    assert resolve_hub(whole_mirror.parent) == whole_mirror.parent, "the argument wins"


def test_without_a_mirror_the_hub_itself_is_meant(monkeypatch):
    monkeypatch.delenv("SPLITLIB_HUB", raising=False)
    assert resolve_hub() is None


def test_a_model_may_be_a_folder(tmp_path):
    assert locate(str(tmp_path), "models") == str(tmp_path)


def test_the_fingerprint_is_of_the_content(mirror, whole_mirror):
    original = load_task(real("cola"), hub=whole_mirror).fingerprint
    assert load_task(real("cola"), hub=mirror).fingerprint == original
    write_split(
        mirror, "cola", "train", CARDS["cola"][2], lambda feature, row: value(feature, row + (feature == STRING))
    )
    assert load_task(real("cola"), hub=mirror).fingerprint != original


def test_changed_data_is_not_served_from_the_cache(mirror):
    """``datasets`` by itself keys its copies by the README and goes on serving the old rows."""
    assert load_real(TASKS["cola"], mirror)[0]["sentence"][0] == "The king laughs 0 times."
    write_split(
        mirror, "cola", "train", CARDS["cola"][2], lambda feature, row: value(feature, row + 7 * (feature == STRING))
    )
    assert load_real(TASKS["cola"], mirror)[0]["sentence"][0] == "The king laughs 7 times."


def test_one_mirror_is_not_served_for_another(whole_mirror, mirror):
    write_split(mirror, "rte", "train", CARDS["rte"][2], lambda feature, row: value(feature, 0))
    labels = [load_real(TASKS["rte"], hub)[0]["label"][:4] for hub in (whole_mirror, mirror, whole_mirror)]
    assert labels == [[0, 1, 0, 1], [0, 0, 0, 0], [0, 1, 0, 1]]


def test_missing_mirror(tmp_path):
    message = one_line(load_task, real("cola"), hub=tmp_path / "nowhere")
    assert message.startswith(f"no hub mirror at {tmp_path / 'nowhere'}; set --hub or SPLITLIB_HUB")


def test_missing_dataset(mirror):
    shutil.rmtree(mirror / "datasets" / "uoft-cs")
    folder = mirror / "datasets" / "uoft-cs" / "cifar100"
    assert one_line(load_task, real("cifar100"), hub=mirror) == (
        f"uoft-cs/cifar100 is not in the hub mirror {mirror}; fetch it with 'hf download uoft-cs/cifar100 "
        f"--repo-type dataset --local-dir {folder}', or use --data embedded"
    )


def test_missing_model(mirror):
    message = one_line(load_task, real("cola").replace(model="no/model"), hub=mirror)
    assert message.startswith("no/model is not in the hub mirror") and "--repo-type model" in message


def test_missing_configuration(mirror):
    write_card(mirror, "rte")
    message = one_line(load_task, real("cola"), hub=mirror)
    assert message.startswith("CoLA (nyu-mll/glue, cola) cannot be read from a local mirror (ValueError: ")


def test_missing_split(mirror):
    card = mirror / "datasets" / "uoft-cs" / "cifar10" / "README.md"
    card.write_text("\n".join(line for line in card.read_text().splitlines() if "split: test" not in line))
    assert "test" in one_line(load_task, real("cifar10"), hub=mirror)


@pytest.mark.parametrize("damage", ["text", "cut", "middle"])
def test_corrupt_parquet(mirror, damage):
    path = mirror / "datasets" / "uoft-cs" / "cifar10" / "plain_text" / "train-00000-of-00001.parquet"
    whole = path.read_bytes()
    path.write_bytes(
        {"text": b"not parquet at all", "cut": whole[:-100], "middle": whole[:50] + b"\xff" * 400 + whole[450:]}[damage]
    )
    message = one_line(load_task, real("cifar10"), hub=mirror)
    assert message.startswith("CIFAR-10 (uoft-cs/cifar10, plain_text) cannot be read from a local mirror (")
    assert message.endswith("; fetch it again, or use --data embedded")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sentence": None}, "nyu-mll/glue has no column 'sentence', only label, idx"),
        ({"sentence": INT32}, "nyu-mll/glue: column 'sentence' should hold text, not Value('int32')"),
        ({"label": INT32}, "nyu-mll/glue: column 'label' should hold named classes, not Value('int32')"),
        ({"label": datasets.ClassLabel(num_classes=3)}, "nyu-mll/glue has 3 classes; CoLA has 2"),
    ],
)
def test_wrong_columns(mirror, changes, message):
    features = {name: feature for name, feature in {**CARDS["cola"][2], **changes}.items() if feature}
    for split in ("train", "validation"):
        write_split(mirror, "cola", split, features)
    assert one_line(load_task, real("cola"), hub=mirror) == message


def test_rows_without_a_label_or_a_sentence(mirror):
    features = CARDS["cola"][2]
    write_split(
        mirror,
        "cola",
        "train",
        features,
        lambda feature, row: -1 if feature == features["label"] else value(feature, row),
    )
    assert one_line(load_task, real("cola"), hub=mirror) == "nyu-mll/glue: some rows of the train split have no label"
    write_split(
        mirror, "cola", "train", features, lambda feature, row: None if feature == STRING else value(feature, row)
    )
    assert one_line(load_task, real("cola"), hub=mirror) == "nyu-mll/glue: some rows of the train split are empty"


def test_unknown_task():
    with pytest.raises(ConfigError, match="unknown task 'mnist'; choose from cifar10, cifar100, food101, cola, rte"):
        get_task("mnist")


@pytest.fixture
def no_network(monkeypatch):
    """The hub's clients as they are without a network: they do try, at a port where nobody listens."""
    monkeypatch.delenv("SPLITLIB_HUB", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")


def test_no_network_is_noticed_at_once(no_network):
    started = time.perf_counter()
    message = one_line(load_task, real("cifar10"))
    assert time.perf_counter() - started < 5
    for remedy in ("cannot be reached", "connect to a network", "SPLITLIB_HUB", "HF_HUB_OFFLINE=1", "--data embedded"):
        assert remedy in message
    assert "name another --model" in one_line(text.tokenizer_for, "roberta-base", "pretrained", "embedded")


def test_a_mistyped_folder_is_not_a_matter_of_the_network(no_network):
    message = one_line(text.tokenizer_for, "./my/modell", "pretrained", "embedded")
    assert message == "'./my/modell' is no folder, and no model of the hub has such a name"


def test_offline_mode_reads_the_cache_only(monkeypatch):
    monkeypatch.delenv("SPLITLIB_HUB", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    message = one_line(load_task, real("cifar10"))
    assert message.startswith("CIFAR-10 (uoft-cs/cifar10, plain_text) cannot be read from the Hugging Face hub (")


@pytest.mark.parametrize(("task", "sizes"), [("cifar10", (50000, 10000)), ("cola", (8551, 1043)), ("rte", (2490, 277))])
def test_real_data(real_hub, task, sizes):
    splits = load_real(TASKS[task], real_hub)
    assert tuple(len(rows) for rows in splits) == sizes
    assert TASKS[task].eval_size == sizes[1]
    assert set(TASKS[task].inputs) <= set(splits[0].column_names)
    encoder = {} if task == "cifar10" else {"model": "sentence-transformers/all-MiniLM-L6-v2"}
    label = load_task(real(task).replace(train_samples=8, eval_samples=8, **encoder), hub=real_hub).label
    assert label == f"{TASKS[task].title} (real, {TASKS[task].repo_id} from a local mirror, 8/8)"
