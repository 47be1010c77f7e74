"""``python -m lmsat_plugin.cli``: the same as ``lmsat``."""

import sys

from lmsat_plugin.cli.main import main

sys.exit(main())
