"""What a user calls a network (a name, a run, a file, another library's), opened with its data and its budget."""

from typing import TYPE_CHECKING

from robustmaps.engine.lazy import lazy

if TYPE_CHECKING:
    from robustmaps.engine.trust import allow_code
    from robustmaps.networks._analysis import AnalyzedNetwork, analyze_network
    from robustmaps.networks._cost import image_cost, mean_over_epochs, trained_cost
    from robustmaps.networks._data import choose_images, load_data
    from robustmaps.networks._enlarging import EnlargedNetwork, claim_enlarged, enlarge_network, save_enlarged
    from robustmaps.networks._evaluated import open_evaluated, open_trained, write_evaluated
    from robustmaps.networks._initial import (
        ResolvedRun,
        Resolver,
        complete,
        create_earlier,
        create_network,
        resolve,
        starting_from,
    )
    from robustmaps.networks._libraries import Fit
    from robustmaps.networks._names import ENLARGED_BY, name_configurations, name_given, name_network, name_runs
    from robustmaps.networks._open_model import open_model
    from robustmaps.networks._open_network import open_network
    from robustmaps.networks._opened import OpenedNetwork
    from robustmaps.networks._planning import PlannedNetwork, plan_network
    from robustmaps.networks._program._choice import EXPORTED, program_beside
    from robustmaps.networks._program._file import PROGRAM_FILE, copy_program, keep_program
    from robustmaps.networks._same_network import enlargement_text, same_networks
    from robustmaps.networks._weights import (
        NAME_ORDER,
        Checkpoint,
        data_for,
        open_checkpoint,
        unknown_order,
        weights_file,
    )
    from robustmaps.training import DESCRIPTION

__all__ = [
    "DESCRIPTION",
    "ENLARGED_BY",
    "EXPORTED",
    "NAME_ORDER",
    "PROGRAM_FILE",
    "AnalyzedNetwork",
    "Checkpoint",
    "EnlargedNetwork",
    "Fit",
    "OpenedNetwork",
    "PlannedNetwork",
    "ResolvedRun",
    "Resolver",
    "allow_code",
    "analyze_network",
    "choose_images",
    "claim_enlarged",
    "complete",
    "copy_program",
    "create_earlier",
    "create_network",
    "data_for",
    "enlarge_network",
    "enlargement_text",
    "image_cost",
    "keep_program",
    "load_data",
    "mean_over_epochs",
    "name_configurations",
    "name_given",
    "name_network",
    "name_runs",
    "open_checkpoint",
    "open_evaluated",
    "open_model",
    "open_network",
    "open_trained",
    "plan_network",
    "program_beside",
    "resolve",
    "same_networks",
    "save_enlarged",
    "starting_from",
    "trained_cost",
    "unknown_order",
    "weights_file",
    "write_evaluated",
]

__getattr__, __dir__ = lazy(__name__, __file__)
