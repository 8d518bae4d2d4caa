"""Responses that attack a judge: for tests, which show that no structure breaks, and for `benchmarks.attack`."""

from benchmarks.attacks.corpus import corpus as corpus
from benchmarks.attacks.corpus import is_text as is_text
from benchmarks.attacks.types import Attack as Attack
