"""The page of app.py."""

import os

# gradio reads these: no request leaves this computer, and no setting of another program opens a file of it.
os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
for _name in ("GRADIO_ALLOWED_PATHS", "GRADIO_ROOT_PATH"):
    os.environ.pop(_name, None)
