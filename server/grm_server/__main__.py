"""`python -m grm_server` is `grm`."""

from grm_server.cli import main

if __name__ == "__main__":
    main()
