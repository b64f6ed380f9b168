"""Look up the locked versions in the advisories of PyPI (`make audit`); fails where one has a known vulnerability.

Where the advisories cannot be reached it says so and passes: an audit that could not be made is no finding.
"""

import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> int:
    """Audit the lock files that between them name every package; the exit status is 1 where one is vulnerable."""
    command = [sys.executable, "-m", "pip_audit", "--no-deps", "--disable-pip", "--format", "json", "--timeout", "5"]
    for name in ("dev", "docs", "tools", "torch"):
        command += ["--requirement", str(HERE / f"{name}.lock")]
    result = subprocess.run(command, capture_output=True, text=True)
    packages = json.loads(result.stdout)["dependencies"] if result.stdout else []
    audited = [package for package in packages if "skip_reason" not in package]
    if not audited:
        print("audit: skipped, the advisories of PyPI cannot be reached from here")
        return 0
    vulnerable = [package for package in audited if package["vulns"]]
    for package in vulnerable:
        advisories = ", ".join(advisory["id"] for advisory in package["vulns"])
        print(f"audit: {package['name']} {package['version']} has {advisories}")
    print(f"audit: {len(vulnerable)} of {len(audited)} packages vulnerable, {len(packages) - len(audited)} not found")
    return 1 if vulnerable else 0


if __name__ == "__main__":
    sys.exit(main())
