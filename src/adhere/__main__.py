"""`python -m adhere` is the `adhere` command."""

from adhere.cli.main import main

main()
