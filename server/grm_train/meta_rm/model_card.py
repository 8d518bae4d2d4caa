"""The README.md of a trained meta RM, and the summary that `grm train-meta-rm` prints. Pure."""

from __future__ import annotations

from grm_server.meta_rm.card import Measured, MetaCard


def numbers(card: MetaCard) -> dict[str, str]:
    """The measurements as text, by name."""
    rows = {"within-prompt AUC": _measured(card)}
    if card.untied is not None:
        rows["... without ties"] = _measured(card.untied)
    rows["calibration error"] = f"{card.ece:.3f}"
    return rows


def _measured(measured: Measured) -> str:
    low, high = measured.auc_interval
    lengths, scores, logits = measured.baselines.length, measured.baselines.scores, measured.baselines.logits
    by_logits = "" if logits is None else f", score probabilities alone {logits:.3f}"
    return (
        f"{measured.auc:.3f} (95 %: {low:.3f} to {high:.3f}, {measured.informative} requests); "
        f"lengths alone {lengths:.3f}, scores alone {scores:.3f}{by_logits}"
    )


def verdict(card: MetaCard) -> str:
    """Whether the meta RM is good enough to guide votes, in words."""
    if card.passes:
        return "It passes the gate."
    return (
        f"WEAK: {'; '.join(card.shortfalls)}. It will hardly improve a vote. The server uses it for requests that ask "
        "for it, but refuses it as the default unless meta_rm.allow_weak=true."
    )


def model_card(card: MetaCard) -> str:
    how = {
        "head": f"a linear score on the last token of its first {card.layers} layers, which are unchanged",
        "full": f"a linear score on the last token; all weights of its {card.layers} layers were trained",
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

Reads what the judge {card.judge} wrote about responses and returns the probability that its scores are right. Made
from {card.base} by `grm train-meta-rm` {card.version}: {how[card.method]}.

{verdict(card)}

| on held-out prompts | |
|---|---|
{rows}

Within-prompt AUC: over requests with both right and wrong trajectories, the mean share of (right, wrong) pairs in the
right order; a coin has 0.5. Ties, where several responses share the highest score, are wrong by definition, easy to
recognise, and worth little in a vote. "Lengths alone" and "scores alone" are baselines without a meta RM: a meta RM
that does not beat them is of no use.

Data: {card.data}, {card.trajectories} trajectories on {card.prompts} prompts; {card.held_out:.0%} of the prompts were
held out for these numbers. They are valid for this judge, data and prompt template only. A trajectory without a tie is
right with probability sigmoid(a * logit + b), a = {a:.6g}, b = {b:.6g} (`meta_rm.json`).

    grm serve --model JUDGE --meta-rm PATH_OF_THIS_FOLDER
"""
