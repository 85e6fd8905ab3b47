"""Processes that run checks together, started once for all tests of this folder.

The file is also what they run: a check is a function of a test file, called in several processes at once,
with the environment that torchrun would give them.
"""

import importlib.util
import os
import pickle
import socket
import subprocess
import sys
import traceback
import warnings
from multiprocessing.connection import Client, Listener

import pytest

MOST = 4
SECONDS = 120  # that a check may take before all processes are given up


class Crew:
    """Calls `crew(number, check, *arguments)`: what the check returned in each of `number` processes.

    A check that raises is reported as the test's failure, unless `failures` is True: then the exception is
    its result.
    """

    def __init__(self, folder):
        self._folder, self._processes, self._started = folder, [], 0

    def __call__(self, number, check, *arguments, failures=False):
        if not self._processes:
            self._start()
        job = pickle.dumps((check.__code__.co_filename, check.__name__, arguments, number, free_port()))
        for connection in self._connections[:number]:
            connection.send_bytes(job)
        results, wrong = [], []
        for rank, connection in enumerate(self._connections[:number]):
            answered = connection.poll(SECONDS if not wrong else 1)
            failed, value, text = (
                pickle.loads(connection.recv_bytes()) if answered else (True, None, "no answer")
            )
            results.append(value)
            wrong += [f"process {rank}: {text}"] * (failed and not failures)
        if wrong:
            self.stop()  # others may wait for the one that failed
            pytest.fail("\n".join(wrong), pytrace=False)
        return results

    def _start(self):
        self._started += 1
        address = str(self._folder / f"{self._started}.socket")
        with Listener(address, backlog=MOST) as listener:
            for rank in range(MOST):
                self._processes.append(subprocess.Popen([sys.executable, __file__, str(rank), address]))
            found = [listener.accept() for _ in range(MOST)]
            self._connections = [
                c for _, c in sorted(((c.recv(), c) for c in found), key=lambda pair: pair[0])
            ]

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


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def crew(tmp_path_factory):
    found = Crew(tmp_path_factory.mktemp("crew"))
    yield found
    found.stop()


def serve(rank, address):
    import torch

    torch.set_num_threads(1)
    connection = Client(address)
    connection.send(rank)
    files = {}
    while True:
        try:
            file, name, arguments, number, port = pickle.loads(connection.recv_bytes())
        except EOFError:
            return
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": number, "MASTER_PORT": port}
        os.environ.update({n: str(value) for n, value in place.items()}, MASTER_ADDR="127.0.0.1")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                files[file] = files.get(file) or load(file)
                answer = False, getattr(files[file], name)(*arguments), ""
        except BaseException as error:
            answer = True, error, traceback.format_exc()
        connection.send_bytes(pickle.dumps(answer))


def load(file):
    spec = importlib.util.spec_from_file_location(f"checks_of_{os.path.basename(file)[:-3]}", file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    serve(int(sys.argv[1]), sys.argv[2])
