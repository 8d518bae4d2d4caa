"""A corpus of responses that attack a judge, for the tests of prompts and for `benchmarks.robustness.attack`."""

from tests.attacks.corpus import corpus as corpus
from tests.attacks.corpus import is_text as is_text
from tests.attacks.types import Attack as Attack
