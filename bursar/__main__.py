"""`python -m bursar` is `bursar`."""

import sys


def main() -> None:
    """The command line; where the client alone is installed, a line that says so."""
    try:
        from bursar.cli import app
    except ModuleNotFoundError as missing:
        sys.exit(f"Only the client is installed: there is no {missing.name}. The service is the extra `server`.")
    app()


if __name__ == "__main__":
    main()
