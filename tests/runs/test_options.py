"""Every option of an attack or a defence either changes what is made or is refused."""

import re
from dataclasses import replace

import pytest

from robustmaps import attacks, defenses
from robustmaps.cli import main
from robustmaps.config import AttackConfig, DefenseConfig, read_study
from robustmaps.engine.errors import InputError
from robustmaps.runs import create_attacks, create_defense

ATTACK_OPTIONS = {
    "version": "a3",
    "steps": 7,
    "step_size": 0.01,
    "relative_step": 0.3,
    "restarts": 9,
    "loss": "margin",
    "exhaustive": True,
    "attack_parameters": "nothing=1",
}
DEFENSE_OPTIONS = {
    "steps": 7,
    "step_size": 0.01,
    "beta": 3.0,
    "awp_gamma": 0.02,
    "awp_warmup": 0.1,
    "tau": 3,
    "replays": 3,
    "helper": "a run",
    "defense_parameters": "nothing=1",
}


def test_the_walks_see_every_option():
    budget = {"attack", "norm", "eps", "defense", "helper_sha256"}
    assert set(vars(AttackConfig())) - budget == set(ATTACK_OPTIONS)
    assert set(vars(DefenseConfig())) - budget == set(DEFENSE_OPTIONS)


@pytest.mark.parametrize("name", attacks.listed())
def test_an_attack_takes_an_option_or_refuses_it(name):
    config = AttackConfig(name)
    norm = next(norm for norm in ("linf", "l2", "l1") if _made(config, norm) is not None)
    for option, value in ATTACK_OPTIONS.items():
        changed = replace(config, **{option: value})
        if option in attacks.takes(name):
            assert create_attacks(changed, norm, 0.1) != create_attacks(config, norm, 0.1), option
            changed.check()
            continue
        refused = re.escape("nothing=1" if "parameters" in option else f"{option}={value!r}")
        message = (
            rf"{refused}: ({name} has no such parameter; leave it out(, or use [^(]*)? \({name} takes norm, eps"
            rf"|{name} is pgd with .*; leave it out, or use pgd instead)"
        )
        with pytest.raises(InputError, match=message):
            create_attacks(changed, norm, 0.1)
        with pytest.raises(InputError, match=message):
            changed.check()


def _made(config, norm):
    try:
        return create_attacks(config, norm, 0.1)
    except InputError:
        return None


@pytest.mark.parametrize("name", defenses.listed())
def test_a_defence_takes_an_option_or_refuses_it(name, monkeypatch):
    monkeypatch.setattr("robustmaps.runs._defenses._network", lambda key, value, of: value)
    config = DefenseConfig(name, eps=0.1)
    for option, value in DEFENSE_OPTIONS.items():
        changed = replace(config, **{option: value})
        if option in defenses.find(name).parameters:
            assert repr(create_defense(changed)) != repr(create_defense(config)) or option == "helper", option
            changed.check()
            continue
        refused = re.escape("nothing=1" if "parameters" in option else f"{option}={value!r}")
        with pytest.raises(InputError, match=rf"^{refused}: {name} has "):
            changed.check()
        if name == "standard" and option in ("steps", "step_size"):
            # A study's other runs need them, and a run that was made with them has to go on.
            assert create_defense(changed) == create_defense(config)
        else:
            with pytest.raises(InputError, match=rf"^{refused}: {name} has "):
                create_defense(changed)


def test_what_one_of_several_attacks_takes_is_taken():
    pgd, square = create_attacks(AttackConfig("pgd, square", steps=3), "linf", 0.1)
    assert pgd.steps == 3
    assert [square] == create_attacks(AttackConfig("square"), "linf", 0.1)
    message = (
        r"steps=3: fgsm and square have no such parameter; leave it out, or use [^(]*pgd "
        r"\(fgsm takes norm, eps; square takes norm, eps, exhaustive\)"
    )
    with pytest.raises(InputError, match=message):
        create_attacks(AttackConfig("fgsm,square", steps=3), "linf", 0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "evaluate RUN --attack fgsm --restarts 9 --loss kl --version a3 --exhaustive",
            "fgsm has no such parameter",
        ),
        ("evaluate RUN --attack fgsm --restarts 5", "restarts=5: fgsm has no such parameter"),
        ("evaluate RUN --attack deepfool --step-size 5", "step_size=5.0: deepfool has no such parameter"),
        ("evaluate RUN --attack square --steps 5", "steps=5: square has no such parameter"),
        ("evaluate RUN --attack autoattack --steps 5", "steps=5: autoattack has no such parameter"),
        ("train --beta 2", "beta=2.0: at has no such parameter; leave it out (at takes norm, eps, steps, step_size)"),
        ("train --defense trades --awp-gamma 0.1", "awp_gamma=0.1: trades has no such parameter"),
        ("train --defense standard --steps 5", "steps=5: standard has no such parameter"),
        ("search resnet8 --defense standard --steps 5", "steps=5: standard has no such parameter"),
    ],
)
def test_the_command_line_refuses_them_before_anything_is_opened(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments.split()) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_configuration_file_is_no_way_around(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for text, message in (
        ("defense: at\nbeta: 2\n", "beta=2.0: at has no such parameter"),
        ("helper_sha256: abc", "helper_sha256=abc: needs helper"),
    ):
        (tmp_path / "run.yaml").write_text(text)
        assert main(["train", "--config", "run.yaml"]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("axes: {defense: [standard, at]}\nfixed: {steps: 5, step_size: 0.01}", None),
        ("axes: {defense: [standard, fast-at]}\nfixed: {steps: 5}", "steps=5: standard has no such parameter"),
        ("axes: {defense: [at]}\nfixed: {beta: 5}", "beta=5.0: at has no such parameter"),
        ("axes: {defense: [trade]}", "did you mean 'trades'"),
        ("evaluation: {attack: fgsm, restarts: 2}", "evaluation: restarts=2: fgsm has no such parameter"),
        ("evaluation: [{attack: pgd}, {attack: sqare}]", "evaluation: unknown attack 'sqare'; did you mean 'square'"),
    ],
)
def test_studies_refuse_what_none_of_their_runs_takes(text, message, tmp_path):
    file = tmp_path / "study.yaml"
    file.write_text(text)
    if message is None:
        assert len(read_study(file).points) == 2
        return
    with pytest.raises(InputError, match=message):
        read_study(file)
