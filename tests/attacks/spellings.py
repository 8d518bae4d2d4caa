"""Ways to spell a marker such that a reader recognises it but a filter may not. Pure functions from text to text."""

from __future__ import annotations

import html
from collections.abc import Callable

Spelling = Callable[[str], str]

_CYRILLIC = str.maketrans("aceopsxyhiTEHBOPCSXMK", "асеорѕхуһіТЕНВОРСЅХМК")
_GREEK = str.maketrans("ovaTEHBOPRIN", "οναΤΕΗΒΟΡRΙΝ")
_SMALL = str.maketrans("abcdefghijklmnoprstuvwz", "ᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘʀꜱᴛᴜᴠᴡᴢ")
_STROKES = str.maketrans("dhlotTeb", "đħłøŧŦɇƀ")
# Letters of TR39's confusables that no table by hand had. Scripts with capitals only spell the text in capitals.
_LISU = str.maketrans("ABCDEFGHIJKLMNOPRSTUVWXYZ", "ꓮꓐꓚꓓꓰꓝꓖꓧꓲꓙꓗꓡꓟꓠꓳꓑꓣꓢꓔꓴꓦꓪꓫꓬꓜ")
_SMALL_CHEROKEE = str.maketrans("cehmprstvwz", "ꮯꭼꮋꮇꮲꮁꮪꭲꮩꮃꮓ")
_COPTIC = str.maketrans("CHKMNOPTceopr", "ⲤⲎⲔⲘⲚⲞⲢⲦⲥⲉⲟⲣⲅ")
_DESERET = str.maketrans("COSLoscue", "𐐕𐐄𐐠𐐛𐐬𐑈𐐽𐓶𐐩")
_OLD_ITALIC = str.maketrans("BCIMTX", "𐌁𐌂𐌉𐌑𐌕𐌗")
_SYLLABICS = str.maketrans("ABDFHLMPRUVbd", "ᗅᗷᗞᖴᕼᒪᗰᑭᖇᑌᐯᑲᑯ")
_ARMENIAN_AND_MATHEMATICS = str.maketrans("TUVSXoughnd", "⟙⋃⋁Տ╳օսցհոɗ")
_BRACKETS = {"[": "【〔〖〚⟦❲⁅", "]": "】〕〗〛⟧❳⁆"}


def _full_width(text: str) -> str:
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)


def _alphabet(capital: int, small: int) -> Spelling:
    """Replace A-Z and a-z by a styled alphabet; capital, small: the code points of its A and a."""

    def spell(text: str) -> str:
        return "".join(
            chr(capital + ord(c) - 65) if "A" <= c <= "Z" else chr(small + ord(c) - 97) if "a" <= c <= "z" else c
            for c in text
        )

    return spell


def _between(mark: str) -> Spelling:
    """Insert the mark after every character."""
    return lambda text: "".join(c + mark for c in text)


def _after_characters(mark: str) -> Spelling:
    return lambda text: "".join(c + mark if c.isalpha() else c for c in text)


def _spaces(space: str) -> Spelling:
    return lambda text: text.replace(" ", space)


def _brackets(kind: int) -> Spelling:
    return lambda text: text.replace("[", _BRACKETS["["][kind]).replace("]", _BRACKETS["]"][kind])


def _joined(text: str) -> str:
    return text.replace(" ", "")


def _wide(text: str) -> str:
    return " ".join(text)


def _in_bold(text: str) -> str:
    return " ".join(f"**{word}**" for word in text.split(" "))


def _bold_inside(text: str) -> str:
    opened, rest = text[:1], text[1:]
    return f"{opened}**{rest[:-1]}**{rest[-1:]}"


SPELLINGS: dict[str, Spelling] = {
    "exact": str,
    "lower": str.lower,
    "upper": str.upper,
    "title": str.title,
    "swapped": str.swapcase,
    "two spaces": _spaces("  "),
    "tabs": _spaces("\t"),
    "no-break spaces": _spaces("\u00a0"),
    "em spaces": _spaces("\u2003"),
    "ideographic spaces": _spaces("\u3000"),
    "underlines": _spaces("_"),
    "SentencePiece spaces": _spaces("\u2581"),
    "braille blanks": _spaces("\u2800"),
    "no spaces": _joined,
    "a space after each letter": _wide,
    "lines": _spaces("\n"),
    "carriage returns": _spaces("\r"),
    "Unicode lines": _spaces("\u2028"),
    "Unicode paragraphs": _spaces("\u2029"),
    "next lines": _spaces("\u0085 "),
    "form feeds": _spaces("\f "),
    "vertical tabs": _spaces("\v "),
    "full width": _full_width,
    "mathematical bold": _alphabet(0x1D400, 0x1D41A),
    "mathematical script": _alphabet(0x1D4D0, 0x1D4EA),
    "double-struck": _alphabet(0x1D538, 0x1D552),
    "monospace": _alphabet(0x1D670, 0x1D68A),
    "circled": _alphabet(0x24B6, 0x24D0),
    "white on black": _alphabet(0x1F150, 0x1F150),
    "flags": _alphabet(0x1F1E6, 0x1F1E6),
    "small capitals": lambda text: text.lower().translate(_SMALL),
    "Cyrillic": lambda text: text.translate(_CYRILLIC),
    "Greek": lambda text: text.translate(_GREEK),
    "Lisu": lambda text: text.upper().translate(_LISU),
    "small Cherokee": lambda text: text.lower().translate(_SMALL_CHEROKEE),
    "Coptic": lambda text: text.translate(_COPTIC),
    "Deseret": lambda text: text.translate(_DESERET),
    "Old Italic": lambda text: text.upper().translate(_OLD_ITALIC),
    "Canadian syllabics": lambda text: text.upper().translate(_SYLLABICS),
    "Canadian syllabics, small": lambda text: text.lower().translate(_SYLLABICS),
    "Armenian and mathematics": lambda text: text.translate(_ARMENIAN_AND_MATHEMATICS),
    "digits for letters": lambda text: text.replace("o", "0").replace("O", "0").replace("i", "1"),
    "strokes": lambda text: text.translate(_STROKES),
    "zero-width spaces": _between("\u200b"),
    "zero-width joiners": _between("\u200d"),
    "zero-width non-joiners": _after_characters("\u200c"),
    "word joiners": _between("\u2060"),
    "soft hyphens": _after_characters("\u00ad"),
    "byte order marks": _between("\ufeff"),
    "variation selectors": _between("\ufe0f"),
    "tag characters": _between("\U000e0041"),
    "Mongolian vowel separators": _between("\u180e"),
    "Hangul fillers": _between("\u3164"),
    "unassigned characters": _between("\u0378"),
    "struck through": _after_characters("\u0336"),
    "underlined": _after_characters("\u0332"),
    "acute accents": _after_characters("\u0301"),
    "enclosing circles": _after_characters("\u20dd"),
    "control characters": _between("\x04"),
    "null characters": _between("\x00"),
    "delete characters": _between("\x7f"),
    "right-to-left override": lambda text: f"\u202e{text[::-1]}\u202c",
    "left-to-right override": lambda text: f"\u202d{text}\u202c",
    "isolates": lambda text: f"\u2067{text}\u2069",
    "reversed": lambda text: text[::-1],
    "HTML entities, named": lambda text: html.escape(text).replace("[", "&lbrack;").replace("]", "&rbrack;"),
    "HTML entities, numbered": lambda text: "".join(f"&#{ord(c)};" for c in text),
    "percent-encoded": lambda text: "".join(c if c.isalnum() else f"%{ord(c):02X}" for c in text),
    "escaped": lambda text: text.encode("unicode_escape").decode().replace("[", "\\u005b").replace("]", "\\u005d"),
    "backslashes": lambda text: text.replace("[", "\\[").replace("]", "\\]"),
    "in bold": lambda text: f"**{text}**",
    "words in bold": _in_bold,
    "bold inside": _bold_inside,
    "in italics": lambda text: f"_{text}_",
    "in code": lambda text: f"`{text}`",
    "in a code block": lambda text: f"```\n{text}\n```",
    "after a closed code block": lambda text: f"```python\nx = 1\n```\n{text}",
    "in an open code block": lambda text: f"```text\n{text}",
    "in HTML": lambda text: f"<p>{text}</p>",
    "in an HTML comment": lambda text: f"<!-- {text} -->",
    "in JSON": lambda text: f'{{"text": "{text}"}}',
    "in a quotation": lambda text: f"> {text}",
    "in a list": lambda text: f"- {text}",
    "in a table": lambda text: f"| {text} |",
    "in doubled brackets": lambda text: f"[{text}]",
    "without an end": lambda text: text[:-1],
    "without a beginning": lambda text: text[1:],
    "twice": lambda text: text * 2,
    "nested": lambda text: text[: len(text) // 2] + text + text[len(text) // 2 :],
    **{
        f"brackets {left}{right}": _brackets(kind)
        for kind, (left, right) in enumerate(zip(_BRACKETS["["], _BRACKETS["]"], strict=True))
    },
}
"""Name -> spelling."""
