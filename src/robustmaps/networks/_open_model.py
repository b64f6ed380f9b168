"""Opening what a user calls a network: one of ours, a run, a saved enlargement, or one of another library."""

from dataclasses import replace
from pathlib import Path

from robustmaps.engine.errors import InputError
from robustmaps.networks._checkpoints import fill
from robustmaps.networks._libraries import Fit, check_name, make_architecture
from robustmaps.networks._opened import OpenedNetwork, Recipe
from robustmaps.networks._weights import open_weights


def open_model(spec: str, fit: Fit | None = None, weights: str | Path | None = None) -> OpenedNetwork:
    """Open a network, with its weights where the name stands for trained ones and with random ones else.

    Args:
        spec: a name of ours, the folder of a run or its weights file, a folder that `robustmaps enlarge` saved,
            ``torchvision:NAME[@WEIGHTS]``, ``timm:NAME[@pretrained]``, ``pytorchcv:NAME``, ``hf:OWNER/NAME``,
            ``hf:FOLDER``, ``robustbench:NAME``, or ``module:function``, where the function takes no arguments and
            returns the network. It is called, since the caller typed it; one that only a file names is not, see
            `allow_code`.
        fit: what a network without weights is made for.
        weights: a file with weights for it, of any program (see `fill`), instead of those that it may have.

    Raises:
        InputError: nothing of that name, a library is missing, it can't make the network, a file names code that is
            not trusted, or the weights don't fit.
    """
    fit = fit or Fit()
    check_name(spec)
    if Path(spec).exists():
        if weights is not None:
            raise InputError(f"weights={weights}: {spec} has weights of its own; give the name of its architecture")
        return open_weights(spec)[0]
    made = make_architecture(spec, fit)
    opened = OpenedNetwork(made.model, Recipe(made.spec, fit), made.trained, image_px=made.image_px)
    if weights is None:
        return opened
    return replace(opened, trained=True, filled=fill(made.model, weights, made.spec))
