"""``python -m flowzoo`` is the command ``flowzoo``."""

from flowzoo.cli.main import main

main()
