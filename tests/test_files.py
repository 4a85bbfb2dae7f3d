"""Files, devices, pipes and locks: nothing blocks, no device is replaced, nothing is left."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dualproc_cli.__main__ import app
from dualproc_cli.bundle import Bundle
from dualproc_cli.commands.sample import _writable
from dualproc_cli.errors import UserError
from dualproc_cli.files import clear_leftovers, locked, require_writable, write_atomically
from dualproc_cli.generator.tensor_file import read_tensor_file
from dualproc_cli.learning.output import Output
from dualproc_cli.spec import SpecError, load_spec
from dualproc_cli.spec.pictures import PictureFault, read_picture


def refused(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 2, (result.output, result.exception)
    (line,) = result.stderr.splitlines()
    return line


def dualproc(command, **options):
    return subprocess.run(["sh", "-c", f"{sys.executable} -m dualproc_cli {command}"], check=False, **options)


def test_a_device_is_not_replaced(tmp_path):
    device = tmp_path / "null"
    try:
        os.mknod(device, 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    except PermissionError:
        device = Path("/dev/null")
    assert "Not a regular file" in refused("schema", "-o", device)
    assert stat.S_ISCHR(device.stat().st_mode)


def test_standard_output_is_written_to_and_not_replaced(tmp_path):
    dualproc("schema -o /dev/stdout > a; cat a > b", cwd=tmp_path)
    dualproc("schema > c", cwd=tmp_path)
    assert (tmp_path / "b").read_bytes() == (tmp_path / "c").read_bytes() != b""
    piped = dualproc("schema -o /dev/stdout | head -c 9", cwd=tmp_path, capture_output=True)
    assert piped.stdout == b'{\n  "$sch'


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "link").symlink_to("file")
    for text in ("one", "two"):
        write_atomically(tmp_path / "link", text)
        assert (tmp_path / "file").read_text() == text
    assert (tmp_path / "link").is_symlink()


def test_init_keeps_a_schema_that_is_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("control.schema.json").write_text("mine")
    result = CliRunner().invoke(app, ["init", "a.yaml"])
    assert result.exit_code == 0
    assert "kept control.schema.json" in result.stderr
    assert Path("control.schema.json").read_text() == "mine"
    CliRunner().invoke(app, ["schema", "-o", "control.schema.json"])
    assert CliRunner().invoke(app, ["init", "b.yaml"]).stderr == ""


@pytest.fixture
def no_waiting():
    """Ends a test that waits for a pipe's other end."""

    def stop(*arguments):
        raise TimeoutError("waits for ever")

    previous = signal.signal(signal.SIGALRM, stop)
    signal.alarm(10)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)


def test_pipes_are_refused(tmp_path, no_waiting):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    os.mkfifo(tmp_path / "bundle.json")
    with pytest.raises(SpecError, match="Not a regular file"):
        load_spec(pipe)
    with pytest.raises(PictureFault, match="Not a regular file"):
        read_picture(pipe)
    with pytest.raises(OSError, match="Not a regular file"):
        read_tensor_file(pipe)  # an adapter, a steering, a checkpoint
    with pytest.raises(UserError, match="Not a regular file"):
        Bundle.open(tmp_path)
    with pytest.raises(UserError, match="no such bundle"):
        Bundle.open(pipe)


@pytest.mark.parametrize("name", ["n" * 300, "n" * 240])
def test_names_that_are_too_long_are_told(tmp_path, name):
    CliRunner().invoke(app, ["init", str(tmp_path / "control.yaml")])
    assert "too long" in refused("check", tmp_path / ("n" * 300))
    assert "too long" in refused("learn", tmp_path / "control.yaml", "-o", tmp_path / name)
    assert "too long" in refused("bundle", "show", tmp_path / ("n" * 300))
    assert "too long" in refused("sample", "--control", tmp_path / ("n" * 300))


# What a killed process leaves


def test_leftovers_are_removed_and_only_those(tmp_path):
    leftovers = [".out.abcd_123.partial", ".out.old.abcd_123.partial"]
    others = [".out.partial", ".out.abcd.partial", ".out2.abcd_123.partial", ".out.abcd_123", "out"]
    for name in (*leftovers, *others):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_bytes(bytes(2**20))
    lines = clear_leftovers(tmp_path / "out")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted(others)
    assert [line.endswith("removed, left by a killed run (1.0 MiB)") for line in lines] == [True, True]


def test_a_folder_that_was_being_replaced_is_put_back(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "weights").write_text("old")
    code = (
        "import os, signal, pathlib, dualproc_cli.files as files\n"
        "rename = pathlib.Path.rename\n"
        "def dies(self, target):\n"
        "    if self.name != 'out': os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return rename(self, target)\n"
        "pathlib.Path.rename = dies\n"
        "with files.folder_atomically(pathlib.Path('out'), overwrite=True) as folder:\n"
        "    (folder / 'weights').write_text('new')\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False)
    assert not (tmp_path / "out").exists()
    lines = clear_leftovers(tmp_path / "out")
    assert (tmp_path / "out" / "weights").read_text() == "old"
    assert os.listdir(tmp_path) == ["out"]
    assert len(lines) == 2


def test_a_file_that_was_being_written_is_removed(tmp_path):
    code = (
        "import os, signal, pathlib, dualproc_cli.files as files\n"
        "os.replace = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)\n"
        "files.write_atomically(pathlib.Path('out'), 'new')\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False)
    assert len(os.listdir(tmp_path)) == 1
    assert len(clear_leftovers(tmp_path / "out")) == 1
    assert os.listdir(tmp_path) == []


# Locks


def test_an_output_has_one_owner_at_a_time(tmp_path):
    output = Output(tmp_path / "out")
    with output.owned():
        with pytest.raises(UserError, match="another run is writing it"), output.owned():
            pass
        with Output(tmp_path / "other").owned():
            pass
    with output.owned():
        pass
    assert os.listdir(tmp_path) == []


def test_a_killed_owner_does_not_leave_the_lock_shut(tmp_path):
    code = (
        "import pathlib, time, dualproc_cli.files as files\n"
        "with files.locked(pathlib.Path('out')):\n"
        "    print('owned', flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE) as owner:
        owner.stdout.readline()
        with pytest.raises(UserError), locked(tmp_path / "out"):
            pass
        owner.kill()
    with locked(tmp_path / "out"):
        pass
    assert os.listdir(tmp_path) == []


# Outputs that cannot be written


def test_a_link_to_nothing_is_no_output(tmp_path):
    (tmp_path / "out").symlink_to(tmp_path / "none" / "out")
    with pytest.raises(UserError, match="a link to nothing"):
        Output(tmp_path / "out").prepare(None, resume=False, overwrite=True)


def test_a_full_disk_is_found_before_anything_is_done(tmp_path, monkeypatch):
    def no_room(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_room)
    with pytest.raises(UserError, match="No space left"):
        require_writable(tmp_path / "out")
    assert os.listdir(tmp_path) == []


def test_a_run_that_draws_owns_its_folder_and_clears_it(tmp_path, capsys):
    """Two runs never draw into one folder at once, and what a killed one left half written is removed."""
    leftover, mine = tmp_path / "drawn" / ".a-house-0.png.k3_a9x0q.partial", tmp_path / "drawn" / ".a.png"
    leftover.parent.mkdir()
    leftover.write_bytes(b"half")
    mine.write_bytes(b"whole")
    with _writable(tmp_path / "drawn"):
        assert {path.name for path in leftover.parent.iterdir()} == {".a.png", ".grid.png.lock"}
        with pytest.raises(UserError, match="another run is writing it"), _writable(tmp_path / "drawn"):
            pass
    assert f"{leftover}: removed, left by a killed run" in capsys.readouterr().err
    assert list(leftover.parent.iterdir()) == [mine]
    with _writable(tmp_path / "new" / "folder"):
        pass
    assert not (tmp_path / "new").exists()
