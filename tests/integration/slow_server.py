"""`grm serve` with a fake engine whose samples take a while: slow_server SECONDS SETTING..."""

import functools
import os
import sys

import grm_server.app
from grm_server.engine.fake import FakeSampler
from grm_server.serve import run

if __name__ == "__main__":
    grm_server.app.FakeSampler = functools.partial(FakeSampler, delay_s=float(sys.argv[1]))  # type: ignore[misc, assignment]
    run(os.environ, sys.argv[2:])
