"""Labelled pairs from rows in the format of the public files."""

import json
import random

from benchmarks.lib.labelled import hh_rlhf, truthfulqa

FIRST = "\n\nHuman: Hi.\n\nAssistant: Hello.\n\nHuman: Why?\n\nAssistant: "


def row(chosen: str, rejected: str) -> str:
    return json.dumps({"chosen": chosen, "rejected": rejected})


def test_dialogues_that_differ_in_their_last_turn() -> None:
    rows = [
        row(FIRST + "Because.", FIRST + "No."),
        # A different conversation, and one that ends with the human's turn.
        row(FIRST + "Because.", "\n\nHuman: Ho.\n\nAssistant: No."),
        row("\n\nHuman: Hi.", "\n\nHuman: Ho."),
    ]
    [item] = hh_rlhf(rows, random.Random(0))
    assert [turn["role"] for turn in item["query"]] == ["user", "assistant", "user"]
    assert item["query"][-1]["content"] == "Why?"
    assert item["responses"][item["label"]] == "Because."
    assert sorted(item["responses"]) == ["Because.", "No."]


def test_a_true_and_a_false_answer_of_each_question() -> None:
    facts = [("One?", "It is.", "yes"), ("One?", "It is not.", "no"), ("Two?", "Both.", "yes"), ("Two?", "Both.", "no")]
    rows = [json.dumps({"prompt": f"Q: {q}\nA: {a}\nTrue:", "completion": f" {true}"}) for q, a, true in facts]
    [item] = truthfulqa(rows, random.Random(0))
    assert (item["query"], item["responses"][item["label"]]) == ("One?", "It is.")
    assert sorted(item["responses"]) == ["It is not.", "It is."]


def test_the_label_is_independent_of_the_position() -> None:
    rows = [row(FIRST + f"Because {number}.", FIRST + "No.") for number in range(200)]
    labels = [item["label"] for item in hh_rlhf(rows, random.Random(0))]
    assert 70 < sum(labels) < 130
