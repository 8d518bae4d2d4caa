"""The README.md of a trained meta RM, and what the command says of it. Pure."""

from __future__ import annotations

from grm_server.meta_rm.card import Measured, MetaCard


def numbers(card: MetaCard) -> dict[str, str]:
    """What was measured, by name."""
    found = {"within-prompt AUC": _measured(card)}
    if card.untied is not None:
        found["... without ties"] = _measured(card.untied)
    found["calibration error"] = f"{card.ece:.3f}"
    return found


def _measured(measured: Measured) -> str:
    low, high = measured.auc_interval
    lengths, scores, logits = measured.baselines.length, measured.baselines.scores, measured.baselines.logits
    by_logits = "" if logits is None else f", score probabilities alone {logits:.3f}"
    return (
        f"{measured.auc:.3f} (95 %: {low:.3f} to {high:.3f}, {measured.informative} requests); "
        f"lengths alone {lengths:.3f}, scores alone {scores:.3f}{by_logits}"
    )


def verdict(card: MetaCard) -> str:
    """Whether it is of use, in words."""
    if card.passes:
        return "It passes the gate."
    return (
        f"WEAK: {'; '.join(card.shortfalls)}. It will hardly improve a vote. The server serves it to requests that ask "
        "for it, and refuses it as a default unless meta_rm.allow_weak=true."
    )


def model_card(card: MetaCard) -> str:
    how = {
        "head": f"a linear score on the last token of its first {card.layers} layers, which are as they were",
        "full": f"a linear score on the last token, all weights of its {card.layers} layers trained",
    }
    rows = "\n".join(f"| {name} | {value} |" for name, value in numbers(card).items())
    a, b = card.platt
    return f"""\
---
library_name: transformers
pipeline_tag: text-classification
tags: [reward-model, generative-reward-model, meta-rm]
---
# Meta RM for {card.judge}

Reads what the judge {card.judge} wrote about responses and says how probable it is that its scores are right. Made
from {card.base} by `grm train-meta-rm` {card.version}: {how[card.method]}.

{verdict(card)}

| on held-out prompts | |
|---|---|
{rows}

Within-prompt AUC: over requests with both right and wrong trajectories, the mean share of such pairs that it ranks
rightly; a coin has 0.5. Ties, where several responses share the highest score, are wrong by definition, easy to see,
and worth little in a vote. "Lengths alone" and "scores alone" need no meta RM: no better than these is no use.

Data: {card.data}, {card.trajectories} trajectories on {card.prompts} prompts, {card.held_out:.0%} of the prompts held
out for these numbers. They hold for this judge, data and prompt template. A trajectory that prefers one response is
right with probability sigmoid(a * logit + b), a = {a:.6g}, b = {b:.6g} (`meta_rm.json`).

    grm serve --model JUDGE --meta-rm PATH_OF_THIS_FOLDER
"""
