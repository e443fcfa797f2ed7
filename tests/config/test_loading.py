"""Loading a file and words into a Config: what wins, what is refused and in which words, and that a dump loads back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest

from lungseg import config as schema
from lungseg.config import Config, DataConfig, ModelConfig, OptimConfig, PhantomConfig, RunConfig, WandbConfig, loading
from lungseg.config.loading import dump_config, load_config, without_places
from lungseg.errors import ConfigError

FILE = Path("configs/x.yaml")
Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write `configs/x.yaml` below the current folder."""
    monkeypatch.chdir(tmp_path)
    FILE.parent.mkdir()

    def write_text(text: str) -> Path:
        FILE.write_text(text, encoding="utf-8")
        return FILE

    return write_text


def _message(file: Path | None, *words: str) -> str:
    with pytest.raises(ConfigError, match=r"\A[^\n]+\Z") as caught:
        load_config(file, words)
    return str(caught.value)


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "model:\ndata:\n  # image_size: 64\n"])
def test_file_without_settings_gives_the_defaults(write: Write, text: str) -> None:
    assert load_config(write(text), []) == load_config(None, []) == Config()


def test_what_one_call_was_given_is_not_the_next_ones_default() -> None:
    load_config(None, ["wandb.tags=[a]", "data.phantom.val=6"]).wandb.tags.append("b")
    assert load_config(None, []) == Config()


def test_words_win_over_the_file_and_the_file_over_the_defaults(write: Write) -> None:
    file = write("optim:\n  lr: 1e-4\n  weight_decay: 0\ndata:\n  phantom: {train: 9}\n")
    config = load_config(file, ["optim.lr=2e-4", "data.phantom.val=6", "optim.lr=3e-4"])
    assert config.optim == OptimConfig(lr=3e-4, weight_decay=0.0)
    assert config.data.phantom == PhantomConfig(train=9, val=6)
    assert replace(config, optim=OptimConfig(), data=DataConfig()) == Config()


def test_number_in_scientific_notation_is_a_float_in_a_file(write: Write) -> None:
    assert load_config(write("optim: {lr: 1e-4, weight_decay: 5E-2}"), []).optim == OptimConfig(1e-4, weight_decay=0.05)


def test_words_of_a_sweep_agent_are_python_values() -> None:
    words = [
        "run.name=007",
        "run.patience=None",
        "run.resume=True",
        "optim.lr=1e-4",
        "loss.class_weights=none",
        "model.encoder_weights=None",
        "model.decoder_channels=[64, 32, 16]",
        "wandb.tags=['a', 'b']",
        "trainer.devices=2",
        "data.batch_size=32.0",
    ]
    assert load_config(None, words) == Config(
        run=RunConfig(name="007", resume=True),
        data=DataConfig(batch_size=32),
        model=ModelConfig(decoder_channels=[64, 32, 16]),
        optim=OptimConfig(lr=1e-4),
        trainer=schema.TrainerConfig(devices=2),
        wandb=WandbConfig(tags=["a", "b"]),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: {encodr: x}", "model.encodr: unknown key; did you mean 'encoder'?"),
        ("modle: {encoder: x}", "modle: unknown key; did you mean 'model'?"),
        ("lr: 1", "lr: unknown key; did you mean 'optim.lr'?"),
        ("model: {lr: 1}", "model.lr: unknown key; did you mean 'optim.lr'?"),
        ("seed: 1", "seed: unknown key; did you mean 'run.seed' or 'data.phantom.seed'?"),
        ("data: {phantom: {trian: 9}}", "data.phantom.trian: unknown key; did you mean 'train'?"),
        ("model: {encodr: x, foo: 1}\nx: 1", "model.encodr: unknown key; did you mean 'encoder'? (and 2 more)"),
        (
            "optim.lr: 1",
            "optim.lr: a dotted key is for the command line; in a file write 'lr:' below 'optim:'",
        ),
        ("model: {head: lineer}", "model.head: must be one of 'linear', 'conv', got 'lineer'; did you mean 'linear'?"),
        ("data: {image_size: 7}", "data.image_size: must be in 32..2048 pixels, got 7"),
        *(
            (
                f"loss: {{class_costs: ['{entry}']}}",
                f"loss.class_costs: must be CLASS=NUMBER each, above 0, a class once, got ['{entry}']",
            )
            for entry in ("Normal", "Normal=", "Normal=0", "Normal=-1", "Normal=nan", "Normal=inf")
        ),
        ("loss: {dice: 0, bce: 0, cross_entropy: 0}", "loss: must be above 0 in sum, got 0"),
        ("optim: {lr: fast}", "optim.lr: expected a number (float), got 'fast'"),
        ("optim: {lr: .nan}", "optim.lr: must be in (0, 1], got nan"),
        ("optim: {final_lr_factor: 1}", "optim.final_lr_factor: must be in [0, 1), got 1.0"),
        ("optim: {weight_decay: .inf}", "optim.weight_decay: must be >= 0 and finite, got inf"),
        ("data: {batch_size: 1.5}", "data.batch_size: expected a whole number (int), got 1.5"),
        ("data: {batch_size: null}", "data.batch_size: may not be empty or null"),
        (
            "data: {cache: [val, tets]}",
            "data.cache: must be true, false, or a list of train, val and test, got ['val', 'tets']",
        ),
        ("run: {name: 007}", "run.name: expected text (str), got 7; put it in quotes"),
        ("run: {name: ???}", "broken YAML at line 1, column 13: did not find expected node content"),
        ("run:\n  name: ???", "run.name: must be given a value, got '???'"),
        ("model: x", "model: expected keys of this section, such as 'model.architecture', got 'x'"),
        ("data: {phantom: [1]}", "data.phantom: expected keys of this section, such as 'data.phantom.train', got [1]"),
        ("model: {encoder: {a: 1}}", "model.encoder: expected text (str), got {'a': 1}"),
        ("run:\n  seed: 1\n  seed: 2\n", "broken YAML at line 3, column 3: found duplicate key seed"),
        ("- run", "expected sections such as 'optim:' at the top level, got ['run']"),
        ("hello", "hello: unknown key; known here: run, data, augment, model, loss, optim, trainer, overlays, wandb"),
        ("null: 1", "cannot be read: Incompatible key type 'NoneType'"),
        ("1: 1", "1: unknown key; known here: run, data, augment, model, loss, optim, trainer, overlays, wandb"),
        (
            "run: {dir: '${run.dirr}'}",
            "run.dir: cannot resolve '${run.dirr}': Interpolation key 'run.dirr' not found",
        ),
        ("run: {dir: '${run.dir}'}", "run.dir: cannot resolve '${run.dir}': Recursive interpolation detected"),
        ("run: {dir: '${'}", "run.dir: cannot be read: no viable alternative at input '${'"),
    ],
)
def test_mistake_in_a_file_is_one_line(write: Write, text: str, message: str) -> None:
    assert _message(write(text)) == f"configs/x.yaml: {message}"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("foo", "expected key=value, got 'foo'"),
        ("=1", "expected key=value, got '=1'"),
        ("optim.lr=fast", "optim.lr: expected a number (float), got 'fast'"),
        ("optim.lr=", "optim.lr: may not be empty or null"),
        ("optim.lr=nan", "optim.lr: must be in (0, 1], got nan"),
        ("loss.dice=inf", "loss.dice: must be >= 0 and finite, got inf"),
        ("optim.warmup_epochs=1e999", "optim.warmup_epochs: must be >= 0 and finite, got inf"),
        ("trainer.gradient_clip_val=inf", "trainer.gradient_clip_val: must be > 0 and finite, or null, got inf"),
        ("optim.lr=7", "optim.lr: must be in (0, 1], got 7.0"),
        ("data.image_size=7", "data.image_size: must be in 32..2048 pixels, got 7"),
        ("run.name=../x", "run.name: must be a plain folder name, got '../x'"),
        ("model.encodr=x", "model.encodr: unknown key; did you mean 'model.encoder'?"),
        ("modle.encoder=x", "modle.encoder: unknown key; did you mean 'model.encoder'?"),
        ("lr=1", "lr: unknown key; did you mean 'optim.lr'?"),
        ("optim.lr.x=1", "optim.lr.x: unknown key; did you mean 'optim.lr'?"),
        ("model=x", "model: expected keys of this section, such as 'model.architecture', got 'x'"),
        ("wandb.tags=${x", "wandb.tags: cannot resolve '${x': no viable alternative at input '${x'"),
        ("data.root=${run.x}", "data.root: cannot resolve '${run.x}': Interpolation key 'run.x' not found"),
    ],
)
def test_mistake_in_a_word_is_one_line(word: str, message: str) -> None:
    assert _message(None, word) == f"command line: {message}"


def test_range_error_names_the_source_that_set_the_key_last(write: Write) -> None:
    file = write("optim: {lr: 5}")
    assert _message(file, "run.seed=1") == "configs/x.yaml: optim.lr: must be in (0, 1], got 5.0"
    assert _message(file, "optim.lr=6") == "command line: optim.lr: must be in (0, 1], got 6.0"
    assert load_config(file, ["optim.lr=1"]).optim.lr == 1.0


def test_range_error_of_a_sum_names_the_source_that_set_one_of_its_terms(write: Write) -> None:
    message = _message(write("loss: {dice: 0, bce: 0}"), "loss.cross_entropy=0", "run.seed=1")
    assert message == "command line: loss: must be above 0 in sum, got 0"


def test_broken_yaml_names_line_and_column(write: Write) -> None:
    assert _message(write("run:\n  seed: 1\n\tname: x\n")).startswith(
        "configs/x.yaml: broken YAML at line 3, column 1: "
    )


@pytest.mark.parametrize("text", ["a: &x [*x]", f"a: {'9' * 5000}", 'a: "\x01"', "a: " + "[" * 500 + "]" * 500])
def test_yaml_that_cannot_be_built_is_one_line(write: Write, text: str) -> None:
    assert _message(write(text)).startswith(("configs/x.yaml: broken YAML", "configs/x.yaml: cannot be read: "))


def test_file_in_another_encoding_is_refused_and_a_byte_order_mark_is_not(write: Write) -> None:
    write("")
    FILE.write_bytes("run: {monitor: ü}".encode("latin-1"))
    assert (
        _message(FILE)
        == "configs/x.yaml: cannot be read: 'utf-8' codec can't decode byte 0xfc in position 15: invalid start byte"
    )
    FILE.write_bytes("\ufeffrun: {seed: 4}".encode())
    assert load_config(FILE, []).run.seed == 4


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("configs/dmo.yaml", "no such file; did you mean 'configs/demo.yaml'?"),
        ("configs/demo", "no such file; did you mean 'configs/demo.yaml'?"),
        ("configs/zzzzzz.yaml", "no such file"),
        ("nowhere/demo.yaml", "no such file"),
        ("configs", "expected a YAML file, got a folder"),
        ("runs/a", "expected a YAML file, got a folder; did you mean 'runs/a/config.yaml'?"),
    ],
)
def test_missing_file_names_the_near_ones(write: Write, name: str, message: str) -> None:
    write("")
    Path("configs/demo.yaml").touch()
    Path("runs/a").mkdir(parents=True)
    Path("runs/a/config.yaml").touch()
    assert _message(Path(name)) == f"{name}: {message}"


def test_interpolation_takes_the_merged_value(write: Write) -> None:
    file = write(
        "data: {phantom: {size_px: '${data.image_size}'}, root: '${run.name}'}\n"
        "run: {dir: 'out/${model.encoder}-${run.seed}'}\n"
        "optim: {lr: '${augment.noise}'}\n"
        "wandb: {tags: ['${run.dir}']}\n"
    )
    config = load_config(file, ["data.image_size=128", "wandb.group=${run.dir}"])
    assert config.data.phantom.size_px == 128
    assert config.data.root is None
    assert config.run.dir == "out/resnet34-0"
    assert config.optim.lr == 0.02
    assert config.wandb.tags == ["out/resnet34-0"]
    assert config.wandb.group == "out/resnet34-0"


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("run: {seed: '${optim.lr}'}", "run.seed: cannot resolve '${optim.lr}': Value '0.001' "),
        ("run: {mode: '${model.head}'}", "run.mode: cannot resolve '${model.head}': Invalid value 'linear', "),
        ("data: {batch_size: '${run.name}'}", "data.batch_size: cannot resolve '${run.name}': Incompatible value "),
        ("wandb: {tags: '${run.dir}'}", "wandb.tags: cannot resolve '${run.dir}': "),
        ("wandb: {tags: ['${run.x}']}", "wandb.tags: cannot resolve ['${run.x}']: Interpolation key 'run.x' not found"),
    ],
)
def test_interpolation_of_another_type_is_refused(write: Write, text: str, start: str) -> None:
    assert _message(write(text)).startswith(f"configs/x.yaml: {start}")


def test_interpolation_to_a_number_that_is_not_finite_is_refused(write: Write) -> None:
    message = _message(write("optim: {weight_decay: '${run.name}'}\nrun: {name: inf}"))
    assert message == "configs/x.yaml: optim.weight_decay: must be >= 0 and finite, got inf"


def test_old_name_of_a_section_is_still_read_with_one_warning_that_names_the_new(
    write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    loading._section_name.cache_clear()
    file = write("cam:\n  samples: 3\n  every_n_epochs: 2\n")
    config = load_config(file, ["cam.max_sheets=4"])
    assert config == load_config(file, ["overlays.max_sheets=4"])
    assert config.overlays == schema.OverlayConfig(samples=3, every_n_epochs=2, max_sheets=4)
    assert [record.getMessage() for record in caplog.records] == [
        "configs/x.yaml: the section 'cam' is called 'overlays' now; the next version refuses it",
        "command line: the section 'cam' is called 'overlays' now; the next version refuses it",
    ]
    assert "overlays:" in dump_config(config)
    assert "cam:" not in dump_config(config)


def test_unknown_key_that_is_near_to_nothing_lists_its_section(write: Write) -> None:
    known = ", ".join(field.name for field in fields(schema.OverlayConfig))
    assert (
        _message(write("overlays: {zzzzzzzz: 1}"))
        == f"configs/x.yaml: overlays.zzzzzzzz: unknown key; known here: {known}"
    )


def test_dump_has_the_schemas_order_and_floats_that_yaml_reads_as_floats() -> None:
    lines = dump_config(Config(optim=OptimConfig(lr=1e-5), augment=schema.AugmentConfig(flip=0.5))).splitlines()
    assert lines[:4] == ["run:", "  name: null", "  dir: runs", "  seed: 0"]
    assert [line for line in lines if not line.startswith(" ")] == [
        f"{name}:" for name in ("run", "data", "augment", "model", "loss", "optim", "trainer", "overlays", "wandb")
    ]
    assert "  lr: 1.0e-05" in lines
    assert "  flip: 0.5" in lines


AWKWARD = [
    "007",
    "null",
    "None",
    "True",
    "a: b",
    "1e-4",
    "1:30",
    "",
    " x ",
    "ü漢😀",
    "a\nb",
    "#",
    "~",
    "'",
    '"',
    "-",
    "\t",
]
INTERPOLATED = ["${run.dir}", "a\\${b}", "\\\\${", "${", "x\\", "$", "{}", "???x", "${a}${b}\\"]


@pytest.mark.parametrize(
    "config",
    [
        Config(),
        Config(optim=OptimConfig(lr=1e-05, encoder_lr_factor=0.1 + 0.2, weight_decay=5e-324, warmup_epochs=1e22)),
        Config(run=RunConfig(name="007", patience=3, monitor="null"), loss=schema.LossConfig(class_weights="balanced")),
        Config(trainer=schema.TrainerConfig(devices=[0, 1], gradient_clip_val=None, limit_train_batches=0.1)),
        Config(
            trainer=schema.TrainerConfig(devices="2"), model=ModelConfig(decoder_channels=[64, 32], encoder_depth=None)
        ),
        Config(data=DataConfig(root="C:\\data\\lungs: Ω", phantom=PhantomConfig(shortcut="all"))),
        Config(wandb=WandbConfig(tags=AWKWARD)),
        Config(wandb=WandbConfig(tags=INTERPOLATED)),
        *[Config(wandb=WandbConfig(project=text, entity=text)) for text in [*AWKWARD, *INTERPOLATED]],
    ],
)
def test_dump_loads_back_equal(tmp_path: Path, config: Config) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(dump_config(config), encoding="utf-8")
    loaded = load_config(file, [])
    assert loaded == config
    assert dump_config(loaded) == dump_config(config)


def test_values_are_plain_and_nested() -> None:
    tree = asdict(load_config(None, ["wandb.tags=[a]", "trainer.devices=[0]"]))
    assert tree["data"]["phantom"]["train"] == 140
    assert type(tree["wandb"]["tags"]) is list
    assert type(tree["trainer"]["devices"]) is list
    assert type(tree["wandb"]["tags"][0]) is str


@pytest.mark.parametrize(
    ("word", "resolved"),
    [
        ("run.name=${oc.env:HOME}", None),
        ("run.name=a-${oc.env:NOTHING,else}", None),
        ("run.name=${oc.decode:1}", None),
        ("run.name=${optim.${run.dir}}", None),
        (r"run.name=\\\\${oc.env:HOME}", None),  # a backslash of its own, then an interpolation
        ("wandb.tags=['${oc.env:HOME}']", None),
        ("run.name=lr-${optim.lr}", "lr-0.001"),
    ],
)
def test_an_interpolation_reads_the_config_and_nothing_else(word: str, resolved: str | None) -> None:
    if resolved is not None:
        assert load_config(None, [word]).run.name == resolved
        return
    with pytest.raises(ConfigError, match=r"only \$\{section.key\} is resolved|expected a list of str"):
        load_config(None, [word])


@pytest.mark.parametrize(
    "name", ["..", "a/..", "a/../../b", "a//b", "/a", "a/", "a\0b", "a\nb", "n" * 101, ".hidden", ""]
)
def test_a_run_cannot_leave_its_folder_by_its_name(name: str) -> None:
    with pytest.raises(ValueError, match=r"run\.name"):
        RunConfig(name=name)
    assert RunConfig(name="study/fold 1-ü").name == "study/fold 1-ü"


def test_what_leaves_the_machine_names_no_place() -> None:
    places = ["data.root", "data.cache_dir", "data.phantom.dir", "run.dir", "run.init", "loss.teacher"]
    places += ["model.encoder_weights"]
    sent = str(without_places(load_config(None, [f"{key}=/secret/place" for key in places])))
    assert "secret" not in sent and "'max_epochs': 50" in sent
    assert without_places(load_config(None, ["model.encoder_weights=lite0"]))["model"]["encoder_weights"] == "lite0"
