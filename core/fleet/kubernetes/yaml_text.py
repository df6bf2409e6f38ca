"""Plain, readable YAML that means the same to every parser: what could be read as anything but text is quoted.

PyYAML and the parser in kubectl differ: ``1e3`` is text to the one and a number to the other, ``y`` a boolean to some.
So only words that no parser takes for something else stand without quotes; several lines stand as a block.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9/._-]*(?: [A-Za-z0-9/._-]+)*")
_OTHER_MEANING = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null", "none"})


def dump_all(objects: Iterable[dict[str, Any]]) -> str:
    """Return objects as one text of YAML documents, keys in the order given."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """Quotes by our rule, and indents lists below their key."""

        def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
            del indentless
            super().increase_indent(flow, False)

        def ignore_aliases(self, data: object) -> bool:
            del data
            return True

    def represent(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
        if "\n" in text:
            style = "|"
        elif _PLAIN.fullmatch(text) and text.lower() not in _OTHER_MEANING:
            style = None
        else:
            style = '"'
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    Dumper.add_representer(str, represent)
    return yaml.dump_all(
        objects, Dumper=Dumper, sort_keys=False, width=100_000, allow_unicode=True, explicit_start=True
    )


def load_all(text: str) -> list[dict[str, Any]]:
    """Return the objects in a text of YAML documents."""
    import yaml

    return [document for document in yaml.safe_load_all(text) if document]
