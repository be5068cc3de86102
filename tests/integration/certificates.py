"""Certificates for tests, made with the openssl command."""

from __future__ import annotations

import pathlib
import subprocess


def _openssl(*words: str) -> None:
    subprocess.run(["openssl", *words], check=True, capture_output=True, text=True, timeout=60)


class Authority:
    """A CA in a folder, and what it signs there."""

    def __init__(self, folder: pathlib.Path, name: str = "ca"):
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.certificate, self._key = folder / f"{name}.pem", folder / f"{name}.key"
        _openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", "2", "-subj", f"/CN={name}", "-keyout", str(self._key), "-out", str(self.certificate)),
        )

    def sign(self, folder: pathlib.Path, name: str, san: str) -> tuple[pathlib.Path, pathlib.Path]:
        """Makes NAME.pem and NAME.key in `folder` with a subject alternative name
        like "DNS:localhost,IP:127.0.0.1"; returns both."""
        folder.mkdir(parents=True, exist_ok=True)
        certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
        request, extensions = folder / f"{name}.csr", folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName={san}\n")
        _openssl(
            *("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-subj", f"/CN={name}", "-keyout", str(key), "-out", str(request)),
        )
        _openssl(
            *("x509", "-req", "-days", "1", "-in", str(request), "-CA", str(self.certificate)),
            *("-CAkey", str(self._key), "-CAcreateserial", "-extfile", str(extensions), "-out", str(certificate)),
        )
        return certificate, key
