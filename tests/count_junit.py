"""Counts tests in JUnit reports.

count_junit.py PATH              prints "passed failed skipped" for a report or a folder of them
count_junit.py --dead LOG DIR    prints how many tests that ctest reports failed left no report in DIR
"""

import pathlib
import re
import sys
import xml.etree.ElementTree as ET


def count(path: pathlib.Path) -> tuple[int, int, int]:
    passed = failed = skipped = 0
    for file in sorted(path.glob("*.xml")) if path.is_dir() else [path]:
        for case in ET.parse(file).getroot().iter("testcase"):
            if case.find("failure") is not None or case.find("error") is not None:
                failed += 1
            elif case.find("skipped") is not None:
                skipped += 1
            elif case.get("status") != "notrun":
                passed += 1
    return passed, failed, skipped


def dead(log: pathlib.Path, reports: pathlib.Path) -> int:
    named = re.findall(r"^\s*\d+ - (\S+) \(", log.read_text(), flags=re.MULTILINE)
    return sum(not (reports / f"{name}.xml").exists() for name in set(named))


def main(args: list[str]) -> None:
    if args[0] == "--dead":
        print(dead(pathlib.Path(args[1]), pathlib.Path(args[2])))
    else:
        print(*count(pathlib.Path(args[0])))


if __name__ == "__main__":
    main(sys.argv[1:])
