"""`python -m app` is `viewgate`."""

from app.cli import main

main()
