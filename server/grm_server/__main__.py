"""`python -m grm_server` is `grm`."""

from grm_server.cli import app

if __name__ == "__main__":
    app()
