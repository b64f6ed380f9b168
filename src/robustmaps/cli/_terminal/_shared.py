"""What the verbs share: opening a network, output, stopping."""

import json
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markdown import Markdown
from rich.measure import Measurement
from rich.table import Table as RichTable
from rich.text import Text

from robustmaps.cli._terminal._streams import stop_signals
from robustmaps.engine.errors import InputError
from robustmaps.engine.tables import Table
from robustmaps.engine.text import visible

if TYPE_CHECKING:
    from robustmaps.cli._terminal._options import ShapedImages, TrainedNetwork
    from robustmaps.networks import Checkpoint

_UNLIMITED = 10_000
_PAGE_WIDTH = 100


def open_given(given: "TrainedNetwork", images: "ShapedImages") -> "Checkpoint":
    """The network of the verbs that take a trained one, with a line for each thing assumed of its weights.

    Raises:
        InputError: none or two are given, or what is given can't be opened.
    """
    from robustmaps.networks import open_trained

    if given.model is None:
        raise InputError("expected a run folder, or a network such as resnet18 or MODULE:FUNCTION with --data")
    options = {**vars(given), "model": given.model}
    checkpoint = open_trained(**options, data=images.data, image_size=images.image_size, channels=images.channels)
    for note in checkpoint.notes:
        tell(f"{given.weights}: {note}")
    return checkpoint


def open_like(given: "TrainedNetwork", model: str, images: "ShapedImages") -> "Checkpoint":
    """A further network, of which as a run the same weights are taken, and whose outputs are in the same order."""
    from robustmaps.config import folder_of_evaluated
    from robustmaps.networks import open_trained
    from robustmaps.training import RUN_WEIGHTS

    place = Path(model)
    which = given.weights if given.weights in RUN_WEIGHTS and place.exists() else None
    if not place.exists() or (place.is_dir() and folder_of_evaluated(place) is not None):
        options: dict[str, Any] = {"classes": given.classes, "data": images.data}
        return open_trained(model, which, **options, image_size=images.image_size, channels=images.channels)
    from robustmaps.networks import open_checkpoint

    return open_checkpoint(model, which or RUN_WEIGHTS[0], classes=given.classes)


def tell(message: str) -> None:
    """Print a line to standard error at once; names in it can't steer the terminal."""
    print(visible(message), file=sys.stderr, flush=True)


class Output:
    """Where results go: one JSON object or text on standard output. All else goes to standard error.

    Args:
        as_json: whether ``--json`` was given.
    """

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._console = Console(soft_wrap=True, highlight=False, emoji=False)

    def result(self, values: Mapping[str, Any], *texts: object) -> None:
        """Print the result: ``values`` as JSON, or the texts, which may be tables or Markdown."""
        if self._as_json:
            print(json.dumps(values, allow_nan=False))
            return
        for text in texts:
            if isinstance(text, Table):
                table = rich_table(text)
                table.width = self._width(table)
                self._console.print(table, soft_wrap=False, crop=False)
            elif isinstance(text, Markdown):
                self._console.print(text, soft_wrap=False, width=min(self._console.width, _PAGE_WIDTH))
            else:
                self._console.print(visible(str(text)), markup=False)

    def _width(self, table: RichTable) -> int:
        """What the table takes; on a terminal no more than that has, as long as figures need not be cut off."""
        needed = Measurement.get(self._console, self._console.options.update(width=_UNLIMITED), table)
        room = self._console.width if self._console.is_terminal else _UNLIMITED
        return needed.maximum if needed.minimum > room else min(needed.maximum, room)


def rich_table(table: Table) -> RichTable:
    """The table on a terminal: words may be broken over lines, figures are not."""
    made = RichTable(box=SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(table.columns):
        figures = table.is_figures(index)
        title, kept = Text(visible(column)), figures or index < table.whole
        made.add_column(title, justify="right" if figures else "left", no_wrap=kept, overflow="fold")
    for row in table.rows:
        # A line end in a name would look like another row.
        made.add_row(*(Text(visible(str(cell)).replace("\n", r"\n")) for cell in row))
    return made


@contextmanager
def stop_on_signal() -> Iterator[Callable[[], bool]]:
    """Within the block Ctrl-C, SIGTERM and SIGHUP ask for a stop; a second one raises KeyboardInterrupt."""
    asked = False

    def ask(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        tell("robustmaps: stopping after this step; press Ctrl-C again to stop immediately")

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, *stop_signals())}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
