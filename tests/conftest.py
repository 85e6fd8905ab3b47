"""What every test shares."""

import torch

# Threads that wait for each other are slower than one on a busy machine, and sums depend on their number.
torch.set_num_threads(1)
