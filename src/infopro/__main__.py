"""`python -m infopro`."""

from infopro.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
