"""``python -m harness``."""

import sys

if __name__ == "__main__":
    try:
        from harness.cli import main
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(main())
