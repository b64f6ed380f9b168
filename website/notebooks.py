"""Notebooks in docs/notebooks: run without Jupyter, with their outputs kept, and as pages of the site.

``python website/notebooks.py`` runs them all and writes their outputs into them. They use plain Python: no magics.
"""

import ast
import base64
import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "notebooks"


def run(path: Path) -> dict[str, Any]:
    """Run the cells of a notebook, one after the other in one namespace.

    Returns:
        the notebook with the outputs: what was printed, the value of a cell's last line, and its figures as PNG.
    """
    notebook: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    names: dict[str, Any] = {"__name__": "__main__"}
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for count, cell in enumerate(cells, 1):
        cell["execution_count"] = count
        cell["outputs"] = _outputs("".join(cell["source"]), f"{path.name}, cell {count}", names, count)
    return notebook


def write(path: Path) -> None:
    """Run a notebook and keep its outputs in it."""
    path.write_text(json.dumps(run(path), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def as_markdown(path: Path) -> str:
    """A notebook as a page: its text, its code, and the outputs that are in it."""
    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        parts += [_shown(output) for output in cell["outputs"]]
    return "\n\n".join(parts) + "\n"


def _outputs(source: str, name: str, names: dict[str, Any], count: int) -> list[dict[str, Any]]:
    *before, last = ast.parse(source).body
    is_value = isinstance(last, ast.Expr) and not source.endswith(";")
    printed = io.StringIO()
    value = None
    with contextlib.redirect_stdout(printed):
        exec(compile(ast.Module([*before, *([] if is_value else [last])], []), name, "exec"), names)
        if is_value:
            value = eval(compile(ast.Expression(last.value), name, "eval"), names)
    outputs: list[dict[str, Any]] = []
    if printed.getvalue():
        text = printed.getvalue().splitlines(keepends=True)
        outputs.append({"output_type": "stream", "name": "stdout", "text": text})
    if value is not None:
        data = {"text/plain": repr(value).splitlines(keepends=True)}
        if hasattr(value, "_repr_html_"):
            data["text/html"] = value._repr_html_().splitlines(keepends=True)
        outputs.append({"output_type": "execute_result", "data": data, "metadata": {}, "execution_count": count})
    return [*outputs, *_figures()]


def _figures() -> list[dict[str, Any]]:
    """The figures that a cell drew; they are closed, as a notebook does."""
    if "matplotlib.pyplot" not in sys.modules:
        return []
    from matplotlib import pyplot

    found = []
    for number in pyplot.get_fignums():
        picture = io.BytesIO()
        pyplot.figure(number).savefig(picture, format="png", dpi=100, bbox_inches="tight", metadata={"Software": None})
        encoded = base64.b64encode(picture.getvalue()).decode()
        found.append({"output_type": "display_data", "data": {"image/png": encoded}, "metadata": {}})
    pyplot.close("all")
    return found


def _shown(output: dict[str, Any]) -> str:
    if output["output_type"] == "stream":
        return f"```text\n{''.join(output['text']).rstrip()}\n```"
    if "image/png" in output["data"]:
        return f"![Output of the code above](data:image/png;base64,{output['data']['image/png']})"
    if "text/html" in output["data"]:
        return "".join(output["data"]["text/html"])
    return f"```text\n{''.join(output['data']['text/plain'])}\n```"


if __name__ == "__main__":
    import matplotlib as mpl

    mpl.use("agg")
    for each in sorted(FOLDER.glob("*.ipynb")):
        write(each)
        print(each.name)
