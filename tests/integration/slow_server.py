"""`grm serve` with a fake engine whose samples take a while: slow_server SECONDS SETTING..."""

import os
import sys

from grm_server.serve import run

if __name__ == "__main__":
    run(os.environ, [f"engine.fake_sample_s={sys.argv[1]}", *sys.argv[2:]])
