"""What every test shares."""

import os

# Some virtual machines advertise AMX and then fault on it: bfloat16 kernels stay on AVX-512.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_FP16")

import torch

# Threads that wait for each other are slower than one on a busy machine, and sums depend on their number.
torch.set_num_threads(1)
