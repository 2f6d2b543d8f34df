"""`make bench`: everything that is measured, one after the other; results in build/benches."""

import subprocess
import sys

for bench in ("startup", "extraction"):
    subprocess.run([sys.executable, "-m", f"benches.{bench}"], check=True)
