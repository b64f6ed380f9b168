"""Small run folders: real ones, and ones written by hand, as a killed or a foreign run leaves them."""

import json
from pathlib import Path

import numpy as np

from robustmaps.config import DefenseConfig, ModelConfig, RunConfig, to_mapping
from robustmaps.evaluation import Evaluation
from robustmaps.studies._processes import TaskOutcome, Worker
from robustmaps.training import TrainOptions

BUDGET = DefenseConfig(eps=0.1, steps=1)


def configuration(upsample: float = 1, seed: int = 0, **model: str) -> RunConfig:
    options = TrainOptions(epochs=1, batch_size=512, device="cpu", precision="fp32", seed=seed)
    return RunConfig(ModelConfig(strides="122", upsample=upsample, **model), defense=BUDGET, training=options)


def verdicts(robust: int, of: int, seed: int = 0) -> tuple[str, ...]:
    """So many robust, then some broken by pgd, the last quarter wrong; the seed moves them all."""
    kinds = ["robust"] * robust + ["pgd"] * (of - of // 4 - robust) + ["wrong"] * (of // 4)
    return tuple(np.roll(kinds, seed).tolist())


def write_run(
    folder: Path,
    config: RunConfig,
    robust: int | None,
    *,
    of: int = 100,
    flops: int = 1000,
    images: str = "same-images",
) -> Path:
    """A run folder without weights; not evaluated where ``robust`` is None."""
    path = folder / config.name
    (path / "evaluation").mkdir(parents=True)
    (path / "config.yaml").write_text(json.dumps(to_mapping(config)))
    robust_by_epoch = {1: 0.5, 2: 0.4}
    epochs = [{"epoch": n, "validation_robust_accuracy": r} for n, r in robust_by_epoch.items()]
    (path / "metrics.jsonl").write_text("".join(json.dumps(epoch) + "\n" for epoch in epochs))
    cost = {"flops": flops, "parameters": 10, "activation_bytes": 100, "map_size": [2, 2]}
    (path / "cost.json").write_text(json.dumps(cost))
    if robust is not None:
        for eps, count in ((0.1, robust), (0.2, robust // 2)):
            found = verdicts(count, of, config.training.seed)
            attack = {"name": "pgd", "norm": "linf", "eps": eps, "steps": 20}
            evaluation = Evaluation(found, (None,) * of, "linf", eps, (attack,), images, 0, 1.0, split="test")
            evaluation.save(path / "evaluation" / f"pgd-linf-{eps}.json")
    return path


class Here:
    """Runs tasks one after the other in this process."""

    def run(self, tasks, *, watcher, finished, should_stop, noted=None):
        outcomes = []
        for index, task in enumerate(tasks):

            def watch(progress, index=index):
                watcher(index, progress)

            try:
                outcome = TaskOutcome(task(Worker(watch, should_stop)))
            except Exception as error:  # noqa: BLE001 - that is what executors do
                outcome = TaskOutcome(error=error)
            outcomes.append(outcome)
            finished(index, outcome)
        return outcomes


def assert_same(first, second):
    """Whether two folders hold the same runs, times aside."""
    times = ("train_s", "validation_s", "images_per_s", "data_s", "data_share")
    assert [record.name for record in first] == [record.name for record in second]
    for a, b in zip(first, second, strict=True):
        assert a.status == b.status == "finished"
        histories = [[{k: v for k, v in epoch.items() if k not in times} for epoch in r.history] for r in (a, b)]
        assert histories[0] == histories[1]
        assert a.evaluations.keys() == b.evaluations.keys()
        for name, evaluation in a.evaluations.items():
            assert evaluation.verdicts == b.evaluations[name].verdicts
            assert evaluation.distances == b.evaluations[name].distances
