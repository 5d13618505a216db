"""`python -m jaxrl.cli`, where the console script is not on the path."""

import sys

from jaxrl.cli import main

sys.exit(main())
