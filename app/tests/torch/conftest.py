"""As the command does, before torch is imported: one thread adds up in another order than two do."""

import os

os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"
