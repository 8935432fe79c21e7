"""`python -m jaxdesign`: the command line."""

import sys

from jaxdesign.cli import main

sys.exit(main())
