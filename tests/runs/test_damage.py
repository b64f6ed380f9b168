"""Damaged evaluations and configurations are refused; adversarial images are on the disk before they are counted."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from robustmaps import data
from robustmaps.config import AttackConfig, RunConfig, from_mapping, read_config, write_run_config
from robustmaps.engine.checked import Damaged
from robustmaps.engine.errors import InputError
from robustmaps.engine.files import write_json
from robustmaps.engine.reading.plain import read_json
from robustmaps.evaluation import Evaluation
from robustmaps.networks import open_checkpoint, open_model
from robustmaps.runs import Options, evaluate_checkpoint, read_run, train

QUICK = AttackConfig(steps=3, restarts=1)
SAVING = Options(samples=40, device="cpu", batch_size=8, save_adversarials=True)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    config = from_mapping({"epochs": 2, "eps": 0.1, "steps": 1, "schedule": "one-cycle", "lr": 0.2}, RunConfig())
    folder = train(config, tmp_path_factory.mktemp("runs")).folder
    evaluate_checkpoint(folder, QUICK, SAVING)
    return folder


@pytest.fixture
def run(trained, tmp_path) -> Path:
    return shutil.copytree(trained, tmp_path / trained.name)


def evaluation_of(run: Path) -> Path:
    return next(path for path in (run / "evaluation").glob("*.json") if "model_info" not in path.name)


@pytest.mark.parametrize(
    ("before", "after"),
    [('"pgd"', '"robust"'), ('"robust"', '"wrong"'), ('"eps": 0.1', '"eps": 0.3'), ('"seed": 0', '"seed": 1')],
)
def test_an_edited_evaluation_is_refused_by_name(before, after, run):
    path = evaluation_of(run)
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))
    with pytest.raises(Damaged, match=rf"{path.name}: damaged or edited: .*delete it and evaluate again"):
        Evaluation.load(path)
    skipped = []
    assert read_run(run, skipped=lambda path, reason: skipped.append(reason)).evaluations == {}
    assert "damaged or edited" in skipped[0]
    with pytest.raises(Damaged):
        evaluate_checkpoint(run, QUICK, SAVING)


def test_an_edited_configuration_is_noticed_by_whatever_opens_the_weights(run, tmp_path):
    config = run / "config.yaml"
    text = config.read_text()
    config.write_text(text.replace("eps: 0.1", "eps: 0.3"))
    assert config.read_text() != text
    for path in (run, run / "best.safetensors"):
        for opens in (open_checkpoint, open_model):
            with pytest.raises(Damaged, match=r"config.yaml: damaged or edited"):
                opens(str(path))
    with pytest.raises(Damaged, match=r"config.yaml: damaged or edited"):
        evaluate_checkpoint(run, QUICK, SAVING)
    config.write_text("{")
    with pytest.raises(InputError, match=r"config\.yaml"):
        open_checkpoint(run)
    moved = Path(shutil.copy(run / "best.safetensors", tmp_path))
    (tmp_path / "config.yaml").write_text("somebody: else\n")
    assert open_checkpoint(moved).eps == 0.1


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"eps": 0.3}, "which records eps 0.1 and not 0.3; put the files of each run back"),
        ({"norm": "l2"}, "which records norm linf and not l2"),
        ({"image_size": 9}, "which records image_size None and not 9"),
    ],
)
def test_the_configuration_of_another_run_is_noticed(other, message, run):
    path = run / "config.yaml"
    config = read_config(path)
    write_run_config(path, from_mapping(other, config))
    with pytest.raises(Damaged, match=f"not the configuration of best.safetensors beside it, {message}"):
        open_checkpoint(run)
    write_run_config(path, config)
    assert open_checkpoint(run).eps == 0.1


@pytest.mark.parametrize(
    "other", [{"data": "mnist"}, {"model": "resnet20"}, {"strides": "112"}, {"defense": "trades"}, {"seed": 7}]
)
def test_the_configuration_of_another_run_is_noticed_without_its_weights(other, run):
    config = read_config(run / "config.yaml")
    write_run_config(run / "config.yaml", from_mapping(other, config))
    with pytest.raises(
        Damaged, match=f"the configuration of another run, .*, in the folder of {run.name}; put the files"
    ):
        read_run(run)
    renamed = run.rename(run.with_name(f"mine-seed0-{config.hash}"))
    write_run_config(renamed / "config.yaml", config)
    assert read_run(renamed).config == config


def test_the_configuration_of_another_run_that_differs_in_one_option_is_noticed(run):
    config = read_config(run / "config.yaml")
    other = from_mapping({"eps": 0.2}, config)
    (run.parent / other.name).mkdir()
    write_run_config(run.parent / other.name / "config.yaml", other)
    (run.parent / other.name / "config.yaml").replace(run / "config.yaml")
    with pytest.raises(Damaged, match=f"the configuration of another run, {other.name}, in the folder of {run.name}"):
        read_run(run)
    moved = run.rename(run.with_name("mine"))  # a name of the user's says nothing
    assert read_run(moved).config == other


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda v: v["robust_accuracy"].update(value=0.975),
            r"robust_accuracy=0.975 contradicts the verdicts",
        ),
        (lambda v: v["verdicts"].__setitem__(0, "robuzt"), "sample 0: the verdict 'robuzt' contradicts the distance"),
        (lambda v: v["verdicts"].pop(), "samples=40 contradicts 39 verdicts and 40 distances"),
        (lambda v: v.update(eps=0.5), r"eps=0\.5 contradicts \w+'s eps="),
        (lambda v: v["attacks"][0].update(eps=0.5), r"contradicts \w+'s eps=0\.5"),
        (lambda v: v.update(norm="l2"), r"norm=l2 contradicts \w+'s norm=linf"),
    ],
)
def test_an_evaluation_that_contradicts_itself_is_refused(change, message, run):
    path = evaluation_of(run)
    values = read_json(path)
    values["verdicts"][0], values["distances"][0], values["perturbations"][0] = "robust", None, None
    change(values)
    write_json(path, values)  # with the checksum of what it now says
    with pytest.raises(InputError, match=message):
        Evaluation.load(path)


def test_a_configuration_that_was_cut_or_edited_is_refused(run):
    path = run / "config.yaml"
    text, whole = path.read_text(), read_config(path)
    _, _, rest = text.partition("\n")
    for damaged in (
        text[: len(text) // 2],
        text.replace("eps: 0.1", "eps: 0.3"),
        text.replace("workers: ", "workers: 1"),
    ):
        assert damaged != text
        path.write_text(damaged)
        with pytest.raises(InputError, match=r"config.yaml: damaged or edited"):
            read_run(run)
    # As written by version 0.1, without a checksum: the folder's name says which configuration it was.
    path.write_text(rest)
    assert read_run(run).config.defense.eps == 0.1
    path.write_text(rest.replace("eps: 0.1", "eps: 0.3"))
    for read in (read_run, lambda run: read_config(run / "config.yaml")):
        with pytest.raises(Damaged, match=rf"a folder of this configuration is called .*, not {run.name}"):
            read(run)
    # With its checksum it is as it was written, even if another version gave its folder a name with another hash.
    other = run.with_name(f"{run.name[:-8]}00000000")
    other.mkdir()
    write_run_config(other / "config.yaml", from_mapping({}, whole))
    assert read_config(other / "config.yaml").defense.eps == 0.1
    # A copy elsewhere is the user's own.
    shutil.copy(path, run.parent / "mine.yaml")
    assert read_config(run.parent / "mine.yaml").defense.eps == 0.3


def test_saved_images_that_were_damaged_are_not_shown_again(run):
    done = evaluate_checkpoint(run, QUICK, SAVING)
    assert done.before
    content = bytearray(done.adversarials.read_bytes())
    content[-100] ^= 1
    done.adversarials.write_bytes(content)
    with pytest.raises(Damaged, match=r"safetensors: damaged or edited"):
        evaluate_checkpoint(run, QUICK, SAVING)


def test_images_are_on_the_disk_before_a_state_counts_them(run, tmp_path, monkeypatch):
    calls = []
    flush, rename = np.memmap.flush, os.replace
    monkeypatch.setattr(np.memmap, "flush", lambda self: (calls.append("flush"), flush(self))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append(Path(b).name), rename(a, b))[1])
    evaluate_checkpoint(run, QUICK, SAVING, out=tmp_path / "out.json")
    states = [at for at, call in enumerate(calls) if call == "state.json"]
    assert len(states) > 3
    assert all(calls[at - 1] == "flush" for at in states)
    assert calls.index("out.safetensors") < calls.index("out.json")


def test_after_a_power_cut_the_images_are_those_of_the_state(run, tmp_path, monkeypatch):
    """What was not flushed is lost: the file of images goes back to its last flush."""
    flushed = {}
    flush = np.memmap.flush

    def record(self):
        flush(self)
        flushed[self.filename] = Path(self.filename).read_bytes()

    def stop(progress):
        if progress.phase == "pgd" and progress.done >= 24:
            raise KeyboardInterrupt

    out = tmp_path / "out.json"
    monkeypatch.setattr(np.memmap, "flush", record)
    with pytest.raises(KeyboardInterrupt):
        evaluate_checkpoint(run, QUICK, replace(SAVING, watcher=stop), out=out)
    ((path, content),) = flushed.items()
    Path(path).write_bytes(content)
    done = evaluate_checkpoint(run, QUICK, SAVING, out=out)
    whole = evaluate_checkpoint(run, QUICK, SAVING)
    assert done.evaluation.saved["images"] > 3
    ours, theirs = load_file(done.adversarials), load_file(whole.adversarials)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("damage", ["clean", "missing", "a bit"])
def test_images_that_were_lost_or_damaged_are_noticed(damage, run, tmp_path):
    def stop(progress):
        if progress.phase == "pgd" and progress.done >= 24:
            raise KeyboardInterrupt

    out = tmp_path / "out.json"
    with pytest.raises(KeyboardInterrupt):
        evaluate_checkpoint(run, QUICK, replace(SAVING, watcher=stop), out=out)
    (kept,) = tmp_path.glob("out.*partial/adversarials.npy")
    if damage == "missing":
        kept.unlink()
    else:
        images = np.load(kept)
        clean = data.load("digits").test.subset(40).tensors()[0].numpy()
        if damage == "clean":
            images[:] = clean
        else:
            row = int((images != clean).any((1, 2, 3)).nonzero()[0][0])
            images[row].view(np.uint32)[0, 0, 0] ^= 1
        np.save(kept, images)
    message = "refers to it" if damage == "missing" else r"image \d+: damaged"
    with pytest.raises(Damaged, match=rf"adversarials.npy.*{message}.*delete the folder"):
        evaluate_checkpoint(run, QUICK, SAVING, out=out)
    assert not out.exists()


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), ("l2", 0.7), ("l1", 4.0)])
def test_8_bit_images_break_their_samples_as_png(norm, eps, run, tmp_path):
    attack = AttackConfig("apgd-ce", norm=norm, eps=(eps,))
    plain, rounded = (
        evaluate_checkpoint(run, attack, replace(SAVING, samples=16, eight_bit=bits), out=tmp_path / f"{bits}.json")
        for bits in (False, True)
    )
    counts = rounded.evaluation.saved
    assert counts["images"] == counts["misleading_at_8_bits"] == counts["within_budget_at_8_bits"] > 1
    assert plain.evaluation.saved["misleading_at_8_bits"] <= plain.evaluation.saved["images"]
    assert plain.evaluation.attacks != rounded.evaluation.attacks
    assert rounded.evaluation == Evaluation.load(rounded.path)
    saved = load_file(rounded.adversarials)
    x, _ = data.load("digits").test.subset(16).tensors()
    model = open_checkpoint(run).model.eval()
    for image, row, label in zip(saved["image"], saved["sample"].tolist(), saved["label"].tolist(), strict=True):
        Image.fromarray((255 * image[0]).round().to(torch.uint8).numpy()).save(tmp_path / "x.png")
        again = torch.from_numpy(np.array(Image.open(tmp_path / "x.png"))).float()[None, None] / 255
        assert torch.equal(again[0], image)
        order = {"linf": float("inf"), "l2": 2, "l1": 1}[norm]
        assert float(torch.linalg.vector_norm(again[0] - x[row], ord=order)) <= eps + 1e-5
        with torch.no_grad():
            assert int(model(again).argmax()) != label


def test_images_between_the_levels_cannot_be_kept_on_them(run):
    from robustmaps.evaluation import evaluate

    model = open_checkpoint(run).model
    with pytest.raises(InputError, match="eight_bit: expected images of multiples of 1/255"):
        evaluate(model, torch.full((2, 1, 8, 8), 0.5), torch.tensor([0, 1]), [], eight_bit=True)


def test_the_counts_of_8_bit_images_are_those_of_rounding(run):
    done = evaluate_checkpoint(run, QUICK, SAVING)
    saved = load_file(done.adversarials)
    with torch.no_grad():
        logits = open_checkpoint(run).model.eval()((255 * saved["image"]).round() / 255)
    counts = json.loads(evaluation_of(run).read_text())["saved"]
    assert counts["misleading_at_8_bits"] == int((logits.argmax(1) != saved["label"]).sum())
    assert counts["images"] == len(saved["label"])
