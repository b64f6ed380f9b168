"""Every option of every command changes what is handed on, or is refused; every help line reads alike."""

import re
from dataclasses import fields, is_dataclass
from pkgutil import resolve_name
from unittest.mock import MagicMock

import pytest

from robustmaps.cli import main

BAD_STARTS = {
    *("a", "an", "the", "of", "for", "in", "on", "with", "by", "to", "from", "at", "into", "over", "after", "before"),
    *("as", "what", "how", "which", "where", "whether", "its", "also", "else"),
}
# What a command needs, and the functions of lower packages that it hands its arguments to.
VERBS = {
    "train": ("", ["runs.train"]),
    "search": ("resnet8", ["networks.load_data", "studies.RayExecutor", "studies.find_candidates", "studies.search"]),
    "advise": ("resnet8", ["networks.load_data", "studies.RayExecutor", "studies.plan_advice", "studies.advise"]),
    "evaluate": (
        "RUN",
        [
            *("networks.open_trained", "networks.open_checkpoint", "evaluation.RayWorkers"),
            *("runs.evaluate_checkpoint", "runs.evaluate_curve", "runs.evaluate_corrupted"),
            *("runs.evaluate_each", "runs.evaluate_transfer"),
        ],
    ),
    "diagnose": ("RUN", ["networks.open_trained", "runs.diagnose_checkpoint"]),
    "analyze": ("resnet8", ["networks.analyze_network"]),
    "plan": ("resnet8", ["networks.plan_network"]),
    "enlarge": ("resnet8", ["networks.enlarge_network", "networks.save_enlarged"]),
    "theory": ("", ["studies.theory"]),
    "demo": ("", ["studies.demo"]),
    "sweep": ("STUDY", ["studies.RayExecutor", "studies.plan_sweep", "studies.sweep"]),
    "reproduce": ("runs", ["runs.reproduce"]),
    "reproduce strides": (
        "--scale full",
        ["studies.plan_ready", "studies.sweep", "report.claim_ready", "report.report_ready"],
    ),
    "export": ("RUN --format torch", ["networks.open_trained", "runs.export"]),
    "report": ("RUN", ["report.report"]),
    "compare": ("RUN RUN", ["studies.compare_runs"]),
    "explain": ("", []),
    "models": ("", ["models.catalog"]),
    "recipes": ("at", []),
    "runs": ("runs", ["runs.list_runs"]),
    "data list": ("", []),
    "data prepare": ("digits", ["data.prepare"]),
    "data show": ("digits", ["data.load", "figures.plot_samples"]),
}
# Options that are refused alone, with what they need beside them.
NEEDS = {
    "--beta": "--defense trades",
    "--awp-gamma": "--defense at-awp",
    "--tau": "--defense fat",
    "--replays": "--defense free-at",
    "--upsample-mode": "--upsample 2",
    "--enlarge-at": "--upsample 2",
    "--extra-share": "--extra-data extra.npz",
    "--version": "--attack autoattack",
    **dict.fromkeys(("--address", "--cpus-per-run", "--gpus-per-run"), "--executor ray"),
    "--weights": None,  # of a network that is no run; see below
    "--channels": "--channels 3",
    "--each": "--attack fgsm,pgd",
    "--helper": None,
    "--init-from": None,
    # Of studies beside a run, of runs beside a study, or of no use beside either: see test_reproduce.py.
    **dict.fromkeys(("--list", "--scale", "--data", "--corruptions", "--jobs", "--dry-run", "--epochs")),
    "--defense-parameters": None,  # of third-party rows: tests/test_contributing.py
    "--attack-parameters": None,
}
TEXTS = {
    "--config": "FILE",
    "--recipe": "at-resnet8-up2-digits",
    "--strides": "112",
    "--enlarge": "last",
    "--enlarge-at": "0.5",
    "--defense": "trades",
    "--attack": "fgsm",
    "--schedule": "cosine",
    "--log": "tensorboard",
    "--device": "cuda:9",
    "--budget": "3x",
    "--where": "last",
    "--sort": "seed",
    "--columns": "seed",
}


def help_of(verb, capsys):
    with pytest.raises(SystemExit):
        main([*verb.split(), "--help"])
    return capsys.readouterr().out


@pytest.fixture
def handed_on(monkeypatch, tmp_path):
    """Runs a command line with the functions that do the work replaced; returns what they were given, or None."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.yaml").write_text("epochs: 7\neps: 0.2\n")
    (tmp_path / "study.yaml").write_text("axes: {seed: [0, 1]}\n")
    (tmp_path / "runs").mkdir()
    for module in ("_verbs._sweep", "_terminal._ready"):
        monkeypatch.setattr(f"robustmaps.cli.{module}.plan_texts", lambda _: [])
        monkeypatch.setattr(f"robustmaps.cli.{module}.plan_line", lambda _: "")

    def call(verb, capsys, *options):
        base, functions = VERBS[verb]
        calls: list[object] = []
        for path in functions:  # before any is replaced, or a module that is imported now would keep that for good
            resolve_name(f"robustmaps.{path}")
        for path in functions:

            def record(*given, _path=path, **named):
                calls.append((_path, [plain(one) for one in given], {k: plain(v) for k, v in named.items()}))
                return [] if _path == "runs.list_runs" else MagicMock()

            monkeypatch.setattr(f"robustmaps.{path}", record)
        words = [*verb.split(), *base.replace("STUDY", "study.yaml").split(), *options]
        try:
            code = main([word.replace("FILE", "file.yaml") for word in words])
        except SystemExit as stop:
            code = stop.code
        out, err = capsys.readouterr()
        if code == 2:
            return None
        return (
            (repr(calls), "" if functions and verb != "runs" else out) if calls or not functions else pytest.fail(err)
        )

    return call


def plain(value):
    if callable(value) or isinstance(value, MagicMock):
        return "..."
    if is_dataclass(value):
        return {item.name: plain(getattr(value, item.name)) for item in fields(value)}
    return repr(value) if not isinstance(value, list | tuple) else [plain(one) for one in value]


def values_of(option, kind):
    if kind is None:
        return [[]]
    if kind.startswith("{"):
        return [[choice] for choice in kind.strip("{}").split(",")]
    if kind.startswith("FLOAT["):
        return [["0.25,0.5"]]
    return (
        [[TEXTS.get(option, {"INT": "4", "FLOAT": "0.2", "[RUN]": ""}.get(kind, "other"))]] if kind != "[RUN]" else [[]]
    )


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_changes_what_is_handed_on_or_is_refused(verb, handed_on, capsys):
    options = re.findall(r"^\W*(--[a-z][a-z0-9-]*)(?: (\S+))?", help_of(verb, capsys), re.MULTILINE)
    base = handed_on(verb, capsys)
    assert base is not None
    walked = 0
    for option, kind in dict(options).items():
        if option in ("--json", "--help"):  # the last step of every command: see below
            continue
        kind = kind if re.match(r"[A-Z{\[]", kind) else None
        changed = [handed_on(verb, capsys, option, *value) for value in values_of(option, kind)]
        assert any(one != base for one in changed), option
        if all(one is None for one in changed):
            needed = NEEDS.get(option, "")
            assert needed != "", f"{option} is refused: {kind}"
            for value in values_of(option, kind) if needed else ():
                with_it = [handed_on(verb, capsys, *needed.split(), *rest) for rest in ((), (option, *value))]
                if None not in with_it and with_it[0] != with_it[1]:
                    break
            else:
                assert needed is None, option
        walked += 1
    assert walked == len({option for option, _ in options} - {"--json", "--help"})


def test_one_s_own_network_is_handed_on(handed_on, capsys, monkeypatch):
    for verb in ("evaluate", "diagnose"):
        for network in ("mine:net", "--model-from mine:net", "--model-from=mine:net"):  # the last as in version 0.1
            monkeypatch.setitem(VERBS, verb, (f"{network} --data digits", VERBS[verb][1]))
            base, *others = (
                handed_on(verb, capsys, *rest)
                for rest in ((), ("--weights", "w.pt"), ("--checkpoint", "w.pt"), ("--enlarge", "last"))
            )
            assert "mine:net" in base[0]
            assert ["w.pt" in other[0] for other in others] == [True, True, False]
            assert "'last'" in others[2][0]


@pytest.mark.parametrize("verb", ["plan", "search"])
def test_upsamples_are_written_with_commas(verb, handed_on, capsys):
    assert "'1.0', '3.0'" in handed_on(verb, capsys, "--upsamples", "1,3")[0]


def test_networks_are_written_with_commas(handed_on, capsys):
    said = handed_on("advise", capsys, "--networks", "resnet20, mine:net")[0]
    assert "'networks': [\"'resnet20'\", \"'mine:net'\"]" in said


def test_a_search_has_one_network(handed_on, capsys):
    assert handed_on("search", capsys, "--model", "resnet20") is None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("plan resnet8 --gain none --eps 0.1", "nothing is perturbed"),
        ("plan resnet8 --budget 30min", "budget='30min': expected a multiple of the given network's cost, such as 2x"),
        ("report runs --no-pictures --device cpu", "nothing is computed"),
        ("runs runs --format csv --columns seed", "leave --columns out"),
        ("runs runs --json --format csv", "give one of them"),
        ("runs runs --json --csv", "give one of them"),
        ("analyze resnet8 --samples 0", "samples=0: expected a whole number of at least 1"),
        ("evaluate resnet8 --data digits --image-size 0", "image_size=0: expected a whole number of at least 1"),
        ("enlarge mine:net --where last --strides 112", "has strides of its own"),
        ("search study.yaml --upsamples 1,4", "leave --upsamples out"),
        ("search study.yaml --config file.yaml", "the study configures its runs"),
        ("train --upsample-mode bicubic", "nothing is upsampled"),
        ("train --extra-share 0.5", "no extra images"),
    ],
)
def test_options_without_effect_are_refused(line, message, handed_on, capsys):
    assert main(line.split()) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("verb", VERBS)
def test_help_lines_are_noun_phrases_or_imperatives(verb, capsys):
    text = re.sub(r"[│╭╮╰╯]", " ", help_of(verb, capsys))
    lines = re.findall(r"^ +(?:--[a-z][a-z0-9-]*|\[?[A-Z]+\]?(?= ))(?: [A-Z{\[]\S*)?\s+(\S+)", text, re.MULTILINE)
    assert lines
    assert [word for word in lines if word.lower().rstrip(",;:") in BAD_STARTS] == []
    assert "if left out" not in " ".join(text.split())


def test_the_help_is_short(capsys):
    counts = {
        verb: len(set(re.findall(r"^\W*(--[a-z][a-z0-9-]*)", help_of(verb, capsys), re.MULTILINE)))
        for verb in VERBS
        if verb != "reproduce strides"  # the same help
    }
    assert sum(counts.values()) <= 306, counts


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (
            "train resnet8 --awp-warmup=0.1",
            "--awp-warmup: no option of this verb; give it in a file, --config FILE, as awp_warmup: 0.1",
        ),
        ("advise resnet8 --lr 0.1", "--lr: no option of this verb; give it in a file"),
        ("search resnet8 --batch-size 8", "--batch-size: no option of this verb; give it in a file"),
        ("train resnet8 --form x", "mart and mart-awp take it as --defense-parameters form=VALUE"),
    ],
)
def test_a_key_that_is_no_option_is_refused_with_where_it_goes(line, says, capsys):
    assert main(line.split()) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["train", "advise", "search"])
def test_the_help_lists_as_options_what_the_verb_takes(verb, capsys):
    with pytest.raises(SystemExit):
        main([verb, "--help"])
    listing, _, options = capsys.readouterr().out.partition("positional arguments")
    rows = listing[listing.index("Defences, each") :]
    named = set(re.findall(r"--[a-z-]+", rows)) - {"--defense-parameters"}
    assert named
    assert {name for name in named if f"{name} " not in options} == set()
    assert re.search(r"at-awp: .*in a file: .*awp_warmup", rows)
