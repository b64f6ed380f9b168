"""``python -m robustmaps``."""

import sys

from robustmaps.cli import main

if __name__ == "__main__":
    sys.exit(main())
