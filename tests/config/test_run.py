"""Configurations: flat keys, typed, with a name for every run."""

from dataclasses import replace

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from robustmaps.config import DataConfig, DefenseConfig, ModelConfig, RunConfig, from_mapping, read_config, to_mapping
from robustmaps.engine.errors import InputError
from robustmaps.runs import folder_of
from robustmaps.training import TrainOptions


def test_yaml_takes_the_keys_of_the_command_line(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("model: resnet18\nstrides: 1122\neps: 4/255\nbatch-size: 64\nlr: 0.05\ncompile: true\n")
    config = read_config(path)
    assert (config.model.model, config.model.strides) == ("resnet18", "1122")
    assert config.defense.eps == 4 / 255
    assert (config.training.batch_size, config.training.lr, config.training.compile) == (64, 0.05, True)


@given(
    eps=st.floats(1e-4, 1) | st.integers(1, 254).map(lambda k: k / 255),
    seed=st.integers(0, 2**31),
    upsample=st.sampled_from([1.0, 1.5, 2.0]),
    step_size=st.none() | st.floats(1e-4, 1),
)
def test_a_configuration_survives_yaml(eps, seed, upsample, step_size):
    config = RunConfig(
        ModelConfig(strides="122", upsample=upsample),
        DataConfig(data="some/where.tar.xz"),
        DefenseConfig(eps=eps, step_size=step_size),
        TrainOptions(seed=seed),
    )
    assert from_mapping(yaml.safe_load(yaml.safe_dump(to_mapping(config)))) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch: 3", "unknown key in .*'epoch'; did you mean 'epochs'"),
        ("epochs: many", "epochs='many': expected a whole number"),
        ("epochs: true", "expected a whole number"),
        ("eps: 8", r"eps=8.0: expected a value in \(0, 1\] for l_inf; did you mean 8/255"),
        ("eps: 8/0", "expected a finite number or a fraction"),
        ("defense: trade", "did you mean 'trades'"),
        ("compile: 1", "expected true or false"),
        ("schedule: step:9,3", "expected ascending epochs"),
        ("- epochs", "expected keys and values"),
        ("epochs: [", "not valid YAML"),
    ],
)
def test_bad_files_are_refused_with_the_reason(tmp_path, text, message):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_config(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.yaml: can't be read"):
        read_config(tmp_path / "nowhere.yaml")


def test_every_decisive_key_has_a_folder_of_its_own(tmp_path):
    base = RunConfig()
    others = [
        replace(base, model=ModelConfig(upsample=2)),
        replace(base, model=ModelConfig(upsample=2, upsample_mode="bicubic")),
        replace(base, model=ModelConfig(strides="112")),
        replace(base, data=DataConfig(validation=0.2)),
        replace(base, defense=DefenseConfig(defense="standard")),
        replace(base, defense=DefenseConfig(eps=4 / 255)),
        replace(base, training=TrainOptions(seed=1)),
        replace(base, training=TrainOptions(epochs=3)),
        replace(base, model=ModelConfig(upsample=2, upsample_mode="area")),
        replace(base, model=ModelConfig(pool="max")),
    ]
    names = [folder_of(config, tmp_path).name for config in (base, *others)]
    assert len(set(names)) == len(names)
    assert "seed1" in folder_of(others[6], tmp_path).name
    assert "up2" in names[1]
    assert "maxpool" in names[-1]


def test_where_a_run_is_computed_does_not_change_its_name(tmp_path):
    base = folder_of(RunConfig(), tmp_path)
    elsewhere = RunConfig(training=TrainOptions(device="cpu", checkpoint_every_s=5, tensorboard=True))
    assert folder_of(elsewhere, tmp_path) == base
    assert folder_of(RunConfig(model=ModelConfig(strides="122")), tmp_path) == base
    assert folder_of(RunConfig(model=ModelConfig(pool="avg")), tmp_path) == base


def test_names_hold_no_separators(tmp_path):
    config = RunConfig(data=DataConfig(data="hf:owner/na me?.x"))
    assert folder_of(config, tmp_path).parent == tmp_path
