"""Output of `grm demo`: a table of rewards, the judge's text in one sample, and the risk of stopping early.

Responses, samples and positions are numbered from 1, as in the judge's own text. (The API counts from 0.)

All text from a model is untrusted. We remove terminal escapes and show it as `Text`, in which rich interprets no
markup.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from grm_client.types import Rewards, Sample

BAR_CELLS = 10
EXCERPT_CHARS = 70
MAX_REWARD = 10.0
BAR_WIDTH = 80
"""Least width of a terminal, in cells, for the bars of the table."""
CHANCES_WIDTH = 60
"""As above, for the probabilities."""
EIGHTHS = " ▏▎▍▌▋▊▉"

# Remove whole escape sequences, so no "[31m" remains: first colour and cursor commands, then sequences that carry text,
# such as window titles and links. The text ends at the next escape, which keeps the search linear.
_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)"
)
# Other control characters, and the bidirectional marks that reverse text.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def clean(text: str) -> str:
    """Make text safe to print on a terminal: removes escapes and control characters, keeps tabs and newlines."""
    return _CONTROLS.sub("", _ESCAPES.sub("", text.replace("\r\n", "\n")))


def excerpt(text: str, limit: int = EXCERPT_CHARS) -> str:
    """The beginning of a text, on one line."""
    line = " ".join(clean(text).split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def bar(reward: float) -> str:
    """A reward as a bar of block characters; ten cells are a reward of 10."""
    full, eighths = divmod(round(reward / MAX_REWARD * BAR_CELLS * 8), 8)
    return ("█" * full + EIGHTHS[eighths]).rstrip().ljust(BAR_CELLS)


def percent(p: float) -> str:
    """A probability as text. An estimate is never certain, so 0 % and 100 % do not occur."""
    if p < 0.005:
        return "<1 %"
    return ">99 %" if p > 0.995 else f"{100 * p:.0f} %"


def render(console: Console, request: Mapping[str, Any], answer: Rewards) -> None:
    """Print an answer.

    request: the request that was sent, with `query` and `responses`.
    answer: includes one sample's principles and critique if the request had `return_samples`.
    """
    console.print(Text(excerpt(_last_turn(request["query"])), style="bold"))
    console.print(_table(request["responses"], answer, console.width))
    sample = next((sample for sample in answer.samples or () if sample.scores is not None), None)
    if sample is not None:
        _print_sample(console, sample)
    for line in (stop_line(answer), usage_line(answer)):
        console.print(Text(line, style="dim"))


def _last_turn(query: str | Sequence[Mapping[str, str]]) -> str:
    return query if isinstance(query, str) else query[-1]["content"]


def _table(responses: Sequence[str], answer: Rewards, width: int) -> Table:
    """One row for each response, best first; tied responses share a rank.

    width: of the terminal, in cells. On a narrow one, the bar is left out first, then the probabilities.
    """
    table = Table(box=None, pad_edge=False, expand=True)
    table.add_column("rank", justify="right", no_wrap=True)
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("reward", no_wrap=True)
    with_bar = width >= BAR_WIDTH
    if with_bar:
        table.add_column("", no_wrap=True)
    # With a single response, its probability of being the best is always 1.
    named = {"p best": answer.p_best, "by label": answer.p_best_label} if len(responses) > 1 else {}
    chances = {name: shares for name, shares in named.items() if shares is not None and width >= CHANCES_WIDTH}
    for name in chances:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("response", no_wrap=True, overflow="ellipsis", ratio=1)
    tied = {i for group in answer.ties for i in group}
    for i in answer.ranking:
        reward = answer.rewards[i]
        rank = 1 + sum(other > reward for other in answer.rewards)
        marks = (["best"] if rank == 1 else []) + (["tie"] if i in tied else [])
        table.add_row(
            Text(str(rank)),
            Text(str(i + 1)),
            Text(f"{reward:.2f} ± {answer.se[i]:.2f}"),
            *([Text(bar(reward), style="cyan")] if with_bar else []),
            *(Text(percent(shares[i])) for shares in chances.values()),
            Text(", ".join(marks), style="green" if rank == 1 else "yellow"),
            Text(excerpt(responses[i], max(EXCERPT_CHARS, width))),
        )
    return table


def _print_sample(console: Console, sample: Sample) -> None:
    """Print the judge's text in the order in which it was written."""
    # The judge's "Response 1" is a position, not a number of the table, so print the mapping.
    shown = ", ".join(f"Response {p + 1} is #{i + 1}" for p, i in enumerate(sample.order))
    for title, text in (("principles", sample.principles), ("critique", sample.critique)):
        if text:
            panel = Panel(Text(clean(text).strip()), title=f"sample {sample.index + 1}: {title}", title_align="left")
            console.print(panel)
    scores = ", ".join(f"#{i + 1} {'-' if score is None else score}" for i, score in enumerate(sample.scores or ()))
    console.print(Text(f"in this sample {shown}; its scores: {scores}", style="dim"))


def stop_line(answer: Rewards) -> str:
    """The number of samples per response, and the risk of stopping there."""
    if answer.k_used >= answer.k:
        return f"k = {answer.k_used} of {answer.k}"
    risk = f"predicted risk that all {answer.k} would decide otherwise: {percent(answer.risk_full_k)}"
    return f"k = {answer.k_used} of {answer.k}, stopped: {clean(answer.stop_reason)} · {risk}"


def usage_line(answer: Rewards) -> str:
    """The cost of the answer: samples, tokens, seconds."""
    lost = ", ".join(f"{count} {clean(reason)}" for reason, count in answer.failures.items())
    tokens = f"{answer.usage.prompt_tokens:,} prompt + {answer.usage.completion_tokens:,} generated tokens"
    votes = f"{answer.k_valid} of {answer.usage.samples} samples voted" + (f" ({lost})" if lost else "")
    return f"{votes} · {tokens} · {answer.timing.total_s:.1f} s"
