"""What a run, a study or an evaluation is to do, as typed, plain values that open nothing."""

from typing import TYPE_CHECKING

from robustmaps.engine.lazy import lazy

if TYPE_CHECKING:
    from robustmaps.config._attack import AttackConfig
    from robustmaps.config._data import DataConfig
    from robustmaps.config._defense import DefenseConfig
    from robustmaps.config._enlarge_option import Surgery, parse_surgery
    from robustmaps.config._evaluated import EVALUATED, EvaluatedNetwork, folder_of_evaluated, read_evaluated
    from robustmaps.config._flat_keys import (
        Fraction,
        flat_values,
        fraction_keys,
        read_mapping,
        section_from_mapping,
        to_mapping,
    )
    from robustmaps.config._growing import earlier_models, last_epochs, parse_shares, plain
    from robustmaps.config._model import ModelConfig
    from robustmaps.config._origin import OriginConfig, find_recipe
    from robustmaps.config._ready import READY, ReadyStudy, Scale, find_ready, ready_studies
    from robustmaps.config._recipe_table import FAMILIES, Recipe
    from robustmaps.config._recipes import (
        departures,
        describe_recipe,
        differing,
        in_effect,
        read_recipe,
        recipe_names,
    )
    from robustmaps.config._run import (
        FromMapping,
        RunConfig,
        check_images_named,
        check_trusted,
        field_names,
        from_mapping,
        images_needed,
        needs_trust,
        read_config,
        read_run_config,
        write_config,
        write_run_config,
    )
    from robustmaps.config._study import (
        STUDY,
        EvaluationConfig,
        Point,
        Split,
        Study,
        asked_for,
        make_study,
        read_study,
        study_record,
        study_text,
    )

__all__ = [
    "EVALUATED",
    "FAMILIES",
    "READY",
    "STUDY",
    "AttackConfig",
    "DataConfig",
    "DefenseConfig",
    "EvaluatedNetwork",
    "EvaluationConfig",
    "Fraction",
    "FromMapping",
    "ModelConfig",
    "OriginConfig",
    "Point",
    "ReadyStudy",
    "Recipe",
    "RunConfig",
    "Scale",
    "Split",
    "Study",
    "Surgery",
    "asked_for",
    "check_images_named",
    "check_trusted",
    "departures",
    "describe_recipe",
    "differing",
    "earlier_models",
    "field_names",
    "find_ready",
    "find_recipe",
    "flat_values",
    "folder_of_evaluated",
    "fraction_keys",
    "from_mapping",
    "images_needed",
    "in_effect",
    "last_epochs",
    "make_study",
    "needs_trust",
    "parse_shares",
    "parse_surgery",
    "plain",
    "read_config",
    "read_evaluated",
    "read_mapping",
    "read_recipe",
    "read_run_config",
    "read_study",
    "ready_studies",
    "recipe_names",
    "section_from_mapping",
    "study_record",
    "study_text",
    "to_mapping",
    "write_config",
    "write_run_config",
]

__getattr__, __dir__ = lazy(__name__, __file__)
