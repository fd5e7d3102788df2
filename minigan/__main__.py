"""``python -m minigan`` is the command line."""

import sys

from minigan.cli.main import main

sys.exit(main())
