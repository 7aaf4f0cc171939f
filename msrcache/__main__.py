"""``python -m msrcache``."""

import sys

from msrcache.cli import main

sys.exit(main())
