"""Two processes that run checks together, started once for all tests of this folder.

The file is also what they run: a check is a function of a test file, called on both ranks at the same time.
"""

import importlib.util
import pickle
import subprocess
import sys
import traceback
import warnings
from multiprocessing.connection import Client, Listener

import pytest

RANKS = 2
SECONDS = 60  # that a check may take, before both processes are given up


class Ranks:
    """Calls `ranks(check, *arguments)`: what the check returned, rank by rank."""

    def __init__(self, folder):
        self._folder, self._processes, self._started = folder, [], 0

    def __call__(self, check, *arguments):
        if not self._processes:
            self._start()
        job = pickle.dumps((check.__code__.co_filename, check.__name__, arguments))
        for connection in self._connections:
            connection.send_bytes(job)
        results, failures = [], []
        for rank, connection in enumerate(self._connections):
            answered = connection.poll(SECONDS if not failures else 1)
            failed, value = pickle.loads(connection.recv_bytes()) if answered else (True, "no answer")
            results.append(value)
            failures += [f"rank {rank}: {value}"] * failed
        if failures:
            self.stop()  # the other rank may hang in a collective
            pytest.fail("\n".join(failures), pytrace=False)
        return results

    def _start(self):
        self._started += 1
        place = self._folder / str(self._started)
        with Listener(str(place) + ".socket", backlog=RANKS) as listener:
            for rank in range(RANKS):
                command = [sys.executable, __file__, str(rank), f"{place}.store", listener.address]
                self._processes.append(subprocess.Popen(command))
            found = [listener.accept() for _ in range(RANKS)]
            self._connections = [c for _, c in sorted((c.recv(), c) for c in found)]

    def stop(self):
        for connection in self._connections if self._processes else []:
            connection.close()  # a process that is not inside a check ends by itself
        for process in self._processes:
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes = []


@pytest.fixture(scope="session")
def ranks(tmp_path_factory):
    both = Ranks(tmp_path_factory.mktemp("ranks"))
    yield both
    both.stop()


def serve(rank, store, address):
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    connection = Client(address)
    connection.send(rank)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=RANKS)
    files = {}
    warnings.simplefilter("error")
    while True:
        try:
            job = connection.recv_bytes()
        except EOFError:
            break
        try:
            path, name, arguments = pickle.loads(job)
            result = (False, getattr(load(path, files), name)(*arguments))
        except BaseException:
            result = (True, traceback.format_exc())
        connection.send_bytes(pickle.dumps(result))
    dist.destroy_process_group()


def load(path, files):
    if path not in files:
        spec = importlib.util.spec_from_file_location(f"checks_{len(files)}", path)
        files[path] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(files[path])
    return files[path]


if __name__ == "__main__":
    serve(int(sys.argv[1]), *sys.argv[2:])
