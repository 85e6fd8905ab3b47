import json
import platform

import torch

from infopro.training import describe_environment, processor_name


def test_a_run_records_versions_hardware_and_source():
    found = describe_environment(torch.device("cpu"))
    assert json.loads(json.dumps(found)) == found
    assert found["python"] == platform.python_version()
    assert found["versions"]["torch"] == torch.__version__ and "infopro" in found["versions"]
    assert found["device"] == processor_name() and found["threads"] == torch.get_num_threads()
    assert found["cpu_capability"] == torch.backends.cpu.get_cpu_capability()


def test_variables_that_choose_kernels_are_recorded(monkeypatch):
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    found = describe_environment(torch.device("cpu"))["variables"]
    assert found["MKL_CBWR"] == "COMPATIBLE" and "OMP_NUM_THREADS" not in found
