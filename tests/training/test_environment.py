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
