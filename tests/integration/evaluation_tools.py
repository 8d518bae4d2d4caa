"""How public evaluation tools read a judge's answer: the patterns and rules of their parsers, in code of our own."""

import re


def rewardbench(answer: str) -> str:
    """allenai/reward-bench, rewardbench/generative.py, process_judgement: A if it occurs anywhere, then B."""
    return next((letter for letter in "AB" if f"[[{letter}]]" in answer), "error")


def rewardbench_4way(answer: str) -> str:
    """The same repository, rewardbench/generative_v2.py."""
    return next((letter for letter in "ABCD" if f"[[{letter}]]" in answer), "error")


def rewardbench_ratings(answer: str) -> int:
    """The same repository, generative_v2.py: the last thing in the answer."""
    match = re.search(r"\b([1-9]|10)\b\s*$", answer.strip())
    return int(match[1]) if match else -1


def judgebench_arena(answer: str) -> str | None:
    """ScalerLab/JudgeBench, utils/judges.py, ArenaHard: all labels in the answer must be the same one."""
    labels = set(re.findall(r"\[\[([AB<>=]+)\]\]", answer))
    return labels.pop().replace(">>", ">") if len(labels) == 1 else None


def judgebench_vanilla(answer: str) -> str:
    """The same file, Vanilla: nothing but the name of an output."""
    return {"Output (a)": "A>B", "Output (b)": "B>A"}[answer.strip()]


def arena_hard(answer: str) -> str | None:
    """lmarena/arena-hard-auto, gen_judgment.py: the last label, in upper case."""
    labels = re.findall(r"\[\[([AB<>=]+)\]\]", answer.upper())
    return labels[-1] if labels else None


def mt_bench(answer: str) -> float:
    """lm-sys/FastChat, fastchat/llm_judge/common.py: the first rating."""
    match = re.search(r"\[\[(\d+\.?\d*)\]\]", answer)
    return float(match[1]) if match else -1.0
