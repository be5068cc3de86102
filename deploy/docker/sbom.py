"""What is in an image, as SPDX 2.3 (ISO/IEC 5962)."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import re
from urllib.parse import quote

from debian import DebianPackage


def spdx(
    image: str,
    version: str,
    linked: set[DebianPackage],
    compiled_in: set[DebianPackage],
    python: dict[str, str],
) -> str:
    """The SPDX document of an image as JSON.

    Args:
      image: its name, for example "ratequant-allocator".
      version: RateQuant's version.
      linked: Debian packages that files in the image are from.
      compiled_in: Debian packages whose code is inside RateQuant's programs.
      python: Python distributions in the image, name to version.
    """
    own = _package("RateQuant", image, version, "Apache-2.0", None)
    packages = [own]
    relations = [_relation("SPDXRef-DOCUMENT", "DESCRIBES", own["SPDXID"])]
    for part, relation in ((linked, "CONTAINS"), (compiled_in - linked, "STATIC_LINK")):
        for package in sorted(part):
            packages.append(_debian(package))
            relations.append(_relation(own["SPDXID"], relation, packages[-1]["SPDXID"]))
    for name, release in sorted(python.items()):
        packages.append(_package("Pypi", name, release, "NOASSERTION", f"pkg:pypi/{name}@{quote(release)}"))
        relations.append(_relation(own["SPDXID"], "CONTAINS", packages[-1]["SPDXID"]))
    content = json.dumps([packages, relations], sort_keys=True)
    digest = hashlib.sha256(content.encode()).hexdigest()
    document = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": image,
        "documentNamespace": f"https://spdx.org/spdxdocs/{image}-{digest}",
        "creationInfo": {"created": _created(), "creators": ["Tool: ratequant-make-root"]},
        "packages": packages,
        "relationships": relations,
    }
    return json.dumps(document, indent=1) + "\n"


def _created() -> str:
    """SOURCE_DATE_EPOCH when it is set, so that the same content gives the same bytes."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    now = datetime.datetime.now(datetime.timezone.utc)
    moment = datetime.datetime.fromtimestamp(int(epoch), datetime.timezone.utc) if epoch else now
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _debian(package: DebianPackage) -> dict:
    url = f"pkg:deb/debian/{package.name}@{quote(package.version)}?arch={package.architecture}&distro=debian-12"
    entry = _package("Debian", package.name, package.version, "NOASSERTION", url)
    entry["sourceInfo"] = f"built from Debian source package {package.source} {package.source_version}"
    entry["supplier"] = "Organization: Debian"
    return entry


def _package(kind: str, name: str, version: str, license_id: str, url: str | None) -> dict:
    entry = {
        "SPDXID": f"SPDXRef-{kind}-" + re.sub(r"[^A-Za-z0-9.-]", "-", name),
        "name": name,
        "versionInfo": version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": license_id,
        "copyrightText": "NOASSERTION",
    }
    if url:
        entry["externalRefs"] = [
            {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": url}
        ]
    return entry


def _relation(source: str, relation: str, target: str) -> dict:
    return {"spdxElementId": source, "relationshipType": relation, "relatedSpdxElement": target}
