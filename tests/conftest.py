"""Nothing here may reach the network: a test that needs a file makes it."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
