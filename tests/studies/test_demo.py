"""The demonstration, at its smallest."""

import json
import shutil

import pytest

from robustmaps.engine.errors import Interrupted
from robustmaps.runs import read_runs
from robustmaps.studies import RunsFailed, demo, statistics_of


@pytest.mark.slow
def test_the_demonstration_can_be_stopped_and_goes_on(tmp_path):
    with pytest.raises(Interrupted):
        demo(tmp_path, seeds=1, epochs=1, jobs=2, should_stop=lambda: True)
    seen = set()
    result = demo(tmp_path, seeds=1, epochs=1, jobs=2, watcher=lambda state: seen.update(state.running))
    assert seen == {"ResNet-8", "ResNet-8 ×2"}
    plain, enlarged = result.variants
    assert enlarged.cost.flops > 3.9 * plain.cost.flops
    assert enlarged.cost.parameters == plain.cost.parameters
    assert (plain.cost.map_size, enlarged.cost.map_size) == ((2, 2), (4, 4))
    assert result.robust_gain.images == 449
    assert result.robust_gain.value == pytest.approx(enlarged.robust.value - plain.robust.value)
    for name in ("curves.png", "attacked.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "summary.json").read_text())["robust_gain"]["seeds"] == 1
    assert result.sentence() in (tmp_path / "summary.md").read_text()
    for recorded in tmp_path.glob("*/cost.json"):
        recorded.unlink()
    found = statistics_of(read_runs(tmp_path))
    assert {each.cost for each in found.variants} == {plain.cost, enlarged.cost}  # from the weights
    (run,) = tmp_path.glob("*-up2-*")
    shutil.rmtree(run / "evaluation")
    (run / "best.safetensors").write_bytes(b"no weights")
    with pytest.raises(RunsFailed, match=run.name):
        demo(tmp_path, seeds=1, epochs=1, jobs=2)
