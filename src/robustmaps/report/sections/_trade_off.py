"""Clean against robust accuracy with cost."""

from robustmaps.engine.numbers import human
from robustmaps.report._blocks import Block, Text
from robustmaps.report.charts._accuracy import TradeOff, differences_chart, trade_off_chart
from robustmaps.report.sections._material import Material
from robustmaps.report.sections._registry import SectionRow
from robustmaps.studies import factors

_SENTENCES = 12
"""The number of comparisons that are also given in words."""


def trade_offs(material: Material) -> list[Block]:
    """Clean against robust accuracy with cost, and the differences to the reference."""
    study = material.study
    if len(study.compared) < 2 or study.yardstick is None:
        return []
    configs = [variant.config for variant in study.compared]
    points = [
        TradeOff(
            variant.name,
            *factors(variant.config, configs),
            variant.clean,
            variant.robust,
            variant.cost.flops if variant.cost else None,
            human(variant.cost.flops, "FLOP") if variant.cost else "cost unknown",
        )
        for variant in study.compared
    ]
    blocks: list[Block] = [trade_off_chart(points, study.yardstick.short, study.tints)]
    if study.gains:
        gains = [(gain.b, gain.a, gain.difference) for gain in study.gains.values()]
        blocks.append(differences_chart(gains, study.yardstick.text))
        blocks += [Text(gain.as_sentence()) for gain in list(study.gains.values())[:_SENTENCES]]
        if len(gains) > _SENTENCES:
            blocks.append(Text(f"The other {len(gains) - _SENTENCES} are in the figures of the plot.", "note"))
    return blocks


ROW = SectionRow(name="trade-off", title="Accuracy, robustness, cost", order=20, blocks=trade_offs)
