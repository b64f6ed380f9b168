"""The worst case of several evaluations, each of one attack by itself."""

from collections.abc import Sequence
from typing import Any

from robustmaps.engine.errors import InputError
from robustmaps.evaluation._result import ROBUST, WRONG, Evaluation, Misclassified
from robustmaps.evaluation._verdict_names import verdict_names

ALONE = "alone"
"""What marks an attack's settings that attacked all images, not those that earlier attacks left."""


def worst_case(evaluations: Sequence[Evaluation]) -> Evaluation:
    """An image is robust if it withstands every attack; its verdict and distance are those of the first that breaks it.

    Consistent accuracy is combined likewise, if all of them have it.

    Args:
        evaluations: of one network on the same images with the same budget and seed, in the order of the verdicts.

    Raises:
        InputError: there are none, or they differ in more than their attacks.
    """
    if not evaluations:
        raise InputError("no evaluations: expected one or more")
    first = evaluations[0]
    for name in ("images_sha256", "checkpoint_sha256", "norm", "eps", "seed", "split"):
        if len(found := {getattr(each, name) for each in evaluations}) > 1:
            raise InputError(
                f"{name}={' and '.join(map(str, found))}: expected evaluations that differ only in attacks"
            )
    settings = [dict(attack) for each in evaluations for attack in each.attacks]
    unique = iter(verdict_names([str(attack["name"]) for attack in settings]))
    # Of each evaluation: its own name of a verdict, and the one among all.
    names = [
        dict(zip(verdict_names([str(attack["name"]) for attack in each.attacks]), unique, strict=False))
        for each in evaluations
    ]
    verdicts, broken_by = _first([each.verdicts for each in evaluations], names)
    parts = [each.misclassified for each in evaluations if each.misclassified is not None]
    misclassified = None
    if len(parts) == len(evaluations):
        changed, _ = _first([part.verdicts for part in parts], names)
        misclassified = Misclassified(tuple(changed), (), sum(part.seconds for part in parts))

    def chosen(values: Sequence[Sequence[Any]]) -> tuple[Any, ...]:
        return tuple(None if by is None else values[by][row] for row, by in enumerate(broken_by))

    known = all(each.perturbations for each in evaluations)
    return Evaluation(
        verdicts=tuple(verdicts),
        distances=chosen([each.distances for each in evaluations]),
        norm=first.norm,
        eps=first.eps,
        attacks=tuple({**attack, ALONE: True} for attack in settings),
        images_sha256=first.images_sha256,
        seed=first.seed,
        seconds=sum(each.seconds for each in evaluations),
        stages=tuple(
            {**stage, "name": named[str(stage["name"])], "broken": verdicts.count(named[str(stage["name"])])}
            for each, named in zip(evaluations, names, strict=True)
            for stage in each.stages
        ),
        warnings=tuple(dict.fromkeys(text for each in evaluations for text in each.warnings)),
        checkpoint_sha256=first.checkpoint_sha256,
        split=first.split,
        environment=first.environment,
        undecided=max(each.undecided for each in evaluations),
        computes=first.computes,
        data=first.data,
        perturbations=chosen([each.perturbations for each in evaluations]) if known else (),
        misclassified=misclassified,
        weights=first.weights,
    )


def _first(columns: Sequence[Sequence[str]], names: Sequence[dict[str, str]]) -> tuple[list[str], list[int | None]]:
    """Per sample the verdict of the first evaluation under which it is not robust, and which one that is."""
    verdicts: list[str] = []
    by: list[int | None] = []
    for each in zip(*columns, strict=True):
        if WRONG in each:
            verdicts.append(WRONG)
            by.append(None)
            continue
        fallen = next((index for index, verdict in enumerate(each) if verdict != ROBUST), None)
        verdicts.append(ROBUST if fallen is None else names[fallen][each[fallen]])
        by.append(fallen)
    return verdicts, by
