"""The Containerfile's last stage built by a real builder, and its image started."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from root_process import USER, need_namespaces
from serving import ROOT, wait_until_serving
from test_images import make_root

from ratequant import Client

PROGRAM = "/usr/bin/ratequant-allocator"


class Builder:
    """buildah with a storage of its own, without a daemon and with the weakest isolation, which needs least."""

    def __init__(self, folder: Path):
        if shutil.which("buildah") is None:
            pytest.skip("needs buildah")
        self._command = ["buildah", "--root", folder / "storage", "--runroot", folder / "run", "--storage-driver", "vfs"]

    def command(self, *words: str | Path) -> list[str]:
        return [*map(str, self._command), *map(str, words)]

    def __call__(self, *words: str | Path) -> str:
        run = subprocess.run(self.command(*words), capture_output=True, text=True, timeout=300)
        assert run.returncode == 0, run.stderr
        return run.stdout.strip()


def stage(name: str) -> str:
    """A stage of the Containerfile, as it stands there."""
    text = (ROOT / "deploy/docker/Containerfile").read_text()
    return re.search(rf"^FROM \S+ AS {name}$.*?(?=^FROM|\Z)", text, re.MULTILINE | re.DOTALL).group()


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> tuple[Builder, str]:
    """The allocator's image, from the root that the stages before would have made."""
    need_namespaces()
    folder = tmp_path_factory.mktemp("image")
    builder = Builder(folder)
    context = folder / "context"
    context.mkdir()
    root = make_root("allocator", folder / "root")
    with tarfile.open(context / "root.tar", "w") as tar:
        tar.add(root, arcname="/")
    before = "FROM scratch AS allocator-root\nADD root.tar /root-of-image\n"
    (context / "Containerfile").write_text(before + stage("allocator"))
    builder("build", "--isolation", "chroot", "--target", "allocator", "-t", "localhost/ratequant-allocator:test", context)
    return builder, "localhost/ratequant-allocator:test"


def test_the_image_has_the_settings_of_a_locked_down_program(image):
    builder, name = image
    inspected = json.loads(builder("inspect", "--type", "image", name))
    config = inspected["OCIv1"]["config"]
    assert config["User"] == f"{USER}:{USER}"
    assert config["Entrypoint"] == [PROGRAM] and config["Cmd"] == ["--data-dir", "/var/lib/ratequant/data"]
    assert config["Volumes"] == {"/var/lib/ratequant": {}} and config["ExposedPorts"] == {"50061/tcp": {}}
    assert config["Env"] == ["PATH=/usr/bin"]


def test_the_image_serves(image, tmp_path):
    builder, name = image
    container = builder("from", "--pull-never", name)
    inside = Path(builder("mount", container))
    volume = inside / "var/lib/ratequant"
    assert (volume.stat().st_uid, volume.stat().st_gid) == (USER, USER)
    assert not list(inside.glob("**/bin/*sh"))
    log = tmp_path / "log"
    arguments = ["--data-dir", "/data/store", "--address", "127.0.0.1:0", "--port-file", "/data/port"]
    data = tmp_path / "data"
    data.mkdir()
    shutil.chown(data, USER, USER)
    command = builder.command("run", "--isolation", "chroot", "--user", f"{USER}:{USER}", "--volume", f"{data}:/data")
    with open(log, "wb") as out:
        # In a process space of its own: nothing of it is left when its first process goes.
        process = subprocess.Popen(
            ["unshare", "--pid", "--fork", "--kill-child", *command, container, "--", PROGRAM, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )

    def check() -> None:
        assert process.poll() is None, log.read_text()

    try:
        with Client(wait_until_serving(data / "port", check)) as client:
            assert list(client.list_models()) == []
    finally:
        process.kill()
        process.wait()
