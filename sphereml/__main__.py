"""``python -m sphereml VERB ...`` is ``sphereml VERB ...``."""

import sys

from sphereml.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
