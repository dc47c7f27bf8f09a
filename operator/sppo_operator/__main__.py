"""`python -m sppo_operator` is the command `sppo`."""

from sppo_operator.commands.cli import main

main()
