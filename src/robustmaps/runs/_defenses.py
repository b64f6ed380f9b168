"""Create defences from their configuration."""

import copy
import warnings
from typing import Any

from torch import nn

from robustmaps import defenses
from robustmaps.config import DefenseConfig
from robustmaps.defenses import Defense
from robustmaps.engine.errors import InputError
from robustmaps.networks import OpenedNetwork, open_checkpoint

_LEAST_L2 = 0.05


def create_defense(config: DefenseConfig, helper: OpenedNetwork | None = None) -> Defense:
    """Create the configured defence.

    Args:
        config: the configuration.
        helper: the network of ``config.helper``, if the caller has opened it.

    Raises:
        InputError: the name is unknown, or the defence does not have a given parameter.
    """
    name, row = config.defense, defenses.find(config.defense)
    if config.norm == "l2" and config.eps < _LEAST_L2:
        warnings.warn(
            f"eps={config.eps:g} is very small for l_2; 128/255 is usual for 32 x 32 images (give --eps)",
            stacklevel=2,
        )
    given: dict[str, Any] = config.given
    # Without an attack, steps and eps are unused; they are set for the other runs of a study.
    idle = () if defenses.is_attacked(name) else ("steps", "step_size")
    defenses.check_parameters(name, {key: each for key, each in given.items() if key not in idle})
    values = {key: each for key, each in {"steps": config.steps, **given}.items() if key in row.parameters}
    for key in row.values.get("networks", ()):
        opened = helper if key == "helper" else None
        values[key] = _network(key, values.get(key), name) if opened is None else _frozen(copy.deepcopy(opened.model))
    return defenses.create(name, config.norm, config.eps, **values)


def _network(key: str, path: str | None, name: str) -> Any:
    if path is None:
        raise InputError(
            f"{key}: {name.removesuffix('-awp')} needs the run of a network trained with --defense standard; give "
            f"--{key} RUN"
        )
    return _frozen(open_checkpoint(path).model)


def _frozen(model: nn.Module) -> nn.Module:
    return model.requires_grad_(False).eval()
