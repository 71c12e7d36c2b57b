"""How many ratings a second the spool acknowledges, and how soon, beside SQLite with a transaction for each."""

import argparse
import pathlib
import subprocess
import tempfile

from harness import machine, version, write_section


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", type=pathlib.Path, required=True)
    parser.add_argument("--inside", type=pathlib.Path, required=True, help="tenantry-bench-ratings")
    parser.add_argument("--folder", type=pathlib.Path, default=tempfile.gettempdir(), help="on the disk to measure")
    parser.add_argument("--seconds", type=int, default=10, help="for each number of clients")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    options = parser.parse_args()
    command = [options.inside, options.folder, str(options.seconds)]
    measured = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    flush, table = measured.strip().split("\n", 1)
    section = [
        "# Ratings", "",
        f"{version(options.binary)}, {machine()}. So many clients each send a rating with an idempotency key, an end user "
        "and a comment, and wait for its answer before they send the next; the spool's file sink takes all of them "
        "meanwhile. Beside it SQLite with the same flushing and one transaction for each rating, without events or a "
        f"sink. {options.seconds} s after 1 s to warm up. {flush}", "",
        table.strip(), "",
        "A client alone waits longer than for a plain insert: a rating is looked up, has two rows and an event, and the "
        "sink flushes its file on the same disk. With many clients shared commits are ahead.",
    ]
    write_section(options.out, "\n".join(section) + "\n")


if __name__ == "__main__":
    main()
