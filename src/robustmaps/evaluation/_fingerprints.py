"""The inputs of an evaluation as plain values and hashes."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import MISSING, Field, asdict, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from robustmaps.attacks import Attack
from robustmaps.engine.errors import InputError
from robustmaps.engine.modes import check_values


def stages(attack: Attack | Sequence[Attack]) -> list[Attack]:
    """The attacks one by one, with an attack such as AutoAttack replaced by its ``stages``.

    Raises:
        InputError: the attacks have different budgets.
    """
    attacks: list[Attack] = []
    for one in attack if isinstance(attack, Sequence) else [attack]:
        attacks.extend(getattr(one, "stages", [one]))
    budgets = {(stage.norm, stage.eps) for stage in attacks}
    if len(budgets) > 1:
        raise InputError(f"attacks with budgets {sorted(budgets)}: expected one budget for all")
    return attacks


def caveats(attack: Attack | Sequence[Attack]) -> list[str]:
    """The attacks' own cautions, to print beside their figures."""
    given: Sequence[Any] = attack if isinstance(attack, Sequence) else [attack]
    return [text for one in given if isinstance(text := getattr(one, "caveat", None), str)]


def attack_settings(
    attack: Attack | Sequence[Attack], *, eight_bit: bool = False, every: bool = False
) -> list[dict[str, Any]]:
    """Name and fields of each of the `stages`, as read back from JSON; other values are given by their ``repr``.

    ``eight_bit`` and ``every`` are among them if True: they make each attack another one.
    """
    marks = {name: True for name, given in (("eight_bit", eight_bit), ("every", every)) if given}
    return [{**_settings(stage), **marks} for stage in stages(attack)]


def _default(item: Field[Any]) -> Any:
    return item.default if item.default_factory is MISSING else item.default_factory()


def _settings(attack: Attack) -> dict[str, Any]:
    """Without fields that an attack leaves out of its text, if they are as usual: earlier evaluations lack them."""
    shown: dict[str, Any] = asdict(attack) if is_dataclass(attack) else {}
    kind: Any = type(attack)
    for item in fields(kind) if shown else ():
        if not item.repr and shown[item.name] == _default(item):
            del shown[item.name]
    values: dict[str, Any] = json.loads(json.dumps({"name": attack.name, **shown}, default=repr))
    return values


def images_sha256(x: Tensor, y: Tensor) -> str:
    """The hash of images and labels, in hexadecimal."""
    digest = hashlib.sha256(repr(tuple(x.shape)).encode())
    digest.update(x.detach().cpu().float().contiguous().numpy().tobytes())
    digest.update(y.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def weights_sha256(model: nn.Module) -> str:
    """The hash of a network's parameters and buffers, in hexadecimal.

    Raises:
        InputError: one has no values yet.
    """
    check_values(model)
    # A network that was opened from a program has the weights of the one it was made from.
    kind = getattr(model, "stands_for", type(model).__name__)
    digest = hashlib.sha256(str(kind).encode())
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        plain = tensor.detach().cpu()
        plain = plain if plain.layout is torch.strided else plain.to_dense()
        digest.update(plain.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
