"""`python -m sppo_operator` is the command `sppo`."""

from sppo_operator.cli import main

main()
