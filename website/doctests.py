"""Examples in docstrings, as blocks of code: Markdown would take ``>>>`` for quotations."""

import re
from typing import Any

from griffe import Extension, Module, Object

_EXAMPLE = re.compile(r"^>>> .*(?:\n(?!\s*$).*)*", re.MULTILINE)


class Doctests(Extension):
    """Puts each example into a fence."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:  # noqa: ARG002
        """Change the docstring of what was read."""
        if obj.docstring is not None and "```" not in obj.docstring.value:
            text = _EXAMPLE.sub(lambda found: f"```pycon\n{found[0]}\n```", obj.docstring.value)
            obj.docstring.value = re.sub(r"  +# doctest:.*", "", text)

    def on_package(self, *, pkg: Module, **kwargs: Any) -> None:
        """Change those of packages, which are read before what is in them."""
        for module in (pkg, *(each for each in pkg.members.values() if isinstance(each, Module))):
            self.on_object(obj=module, **kwargs)
