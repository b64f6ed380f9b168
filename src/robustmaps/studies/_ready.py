"""Ready studies: their plan."""

from pathlib import Path

from robustmaps.config import ReadyStudy, Scale
from robustmaps.engine.errors import InputError
from robustmaps.networks import Resolver
from robustmaps.studies._plan import SweepPlan, plan_sweep


def plan_ready(
    ready: ReadyStudy,
    scale: Scale,
    out: str | Path,
    *,
    data: str | None = None,
    jobs: int | None = None,
    dry: bool = False,
) -> SweepPlan:
    """Find the missing runs of a ready study and estimate their cost; writes nothing.

    Args:
        ready: the study.
        scale: full or small.
        out: the folder of its folder, which is called ``NAME-SCALE``.
        data: images in place of the recipes' own; for the full one only.
        jobs: number of parallel runs.
        dry: see `plan_sweep`.

    Raises:
        InputError: the images are not there or not accepted, or a run can't be made here.
    """
    resolver = Resolver()
    study = ready.study(scale, data=data, make=resolver.complete)
    try:
        return plan_sweep(study, Path(out) / study.name, jobs=jobs, resolver=resolver, dry=dry)
    except InputError as error:
        if scale == "full" and data is None:
            error.add_note("--data takes the images from elsewhere, such as an archive of CIFAR-10's class folders")
        raise
