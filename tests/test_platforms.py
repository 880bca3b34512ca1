"""Where there is no fcntl, no resource, no fork and no signal but two: the package imports, reads and judges."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.stages.tiny_run import a_run

# What Windows lacks, and folders that cannot be opened. In a process of its own: it cannot be undone.
WITHOUT = """
import os, signal, sys
import multiprocessing.connection, subprocess, tempfile, logging, random, threading  # what Python itself has of these
for name in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[name] = None
plain_open = os.open
def open_files(path, *args, **kwargs):
    if os.path.isdir(path) and sys._getframe(1).f_globals["__name__"].startswith("ssl_lightning"):
        raise PermissionError(13, "Permission denied", path)
    return plain_open(path, *args, **kwargs)
os.open = open_files
os.umask(0o027)
"""
# After torch, which needs them itself on this system.
LATER = """
import torch, lightning, torch.distributed.checkpoint, torch._dynamo
for name in ("register_at_fork", "sched_getaffinity", "O_NONBLOCK", "fork", "getuid", "getpgid", "killpg"):
    delattr(os, name)
for name in ("SIGKILL", "SIGUSR1", "SIGUSR2", "SIGHUP"):
    delattr(signal, name)
"""
PROGRAM = """
import importlib, json, pkgutil
import ssl_lightning
for found in pkgutil.walk_packages(ssl_lightning.__path__, "ssl_lightning."):
    if not found.name.endswith(("__main__", "wandb_logger", "tensorboard_logger")):
        importlib.import_module(found.name)
from ssl_lightning.__main__ import main
run, here = sys.argv[1:]
net = ssl_lightning.load_backbone(run)
small = ["data.size=64", "data.test_size=16", "data.image_size=16", "data.batch_size=16", f"runs_dir={here}"]
assert main(["stage=export", "name=export", f"ckpt={run}", f"runs_dir={here}"]) == 0
for words in (["stage=knn", "name=knn"], ["stage=embed", "name=embed"]):
    assert main([*words, *small, f"ckpt={run}", "trainer.accelerator=cpu"]) == 0
train = ["backbone.width=4", "method.projector.hidden_dim=8", "method.projector.out_dim=4", "trainer.max_epochs=1"]
assert main([*small, *train, "stage.judge=false", "trainer.accelerator=cpu", "name=trained"]) == 0
print(json.dumps(net(torch.zeros(1, 3, 16, 16)).shape[1] == net.out_dim))
"""


def test_without_what_windows_lacks_it_trains_and_judges_and_files_follow_the_umask(tmp_path: Path) -> None:
    run = tmp_path / "given"
    run.mkdir()
    a_run(run)
    root = str(Path(__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root, "XDG_CACHE_HOME": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-W", "ignore", "-c", WITHOUT + LATER + PROGRAM, str(run), str(tmp_path / "runs")]
    done = subprocess.run(words, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) is True
    assert "cannot be locked" in done.stderr
    files = [file for folder in ("runs", "cache") for file in (tmp_path / folder).rglob("*") if file.is_file()]
    names = {file.name for file in files}
    assert {"results.json", "backbone.safetensors", "backbone.json", "features_test.npz", "last.ckpt"} <= names
    assert {"config.yaml", "metrics.csv", "views.png"} <= names
    assert any(file.suffix == ".npy" for file in files)  # the images, in the cache
    ours = [file for file in files if "matplotlib" not in file.parts]
    assert {oct(file.stat().st_mode & 0o777) for file in ours} == {"0o640"}
