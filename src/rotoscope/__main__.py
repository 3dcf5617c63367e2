"""`python -m rotoscope`: the command line."""

import sys

from rotoscope.cli.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
