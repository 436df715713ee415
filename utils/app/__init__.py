"""The page of app.py."""

import os

# gradio reads these: no request leaves this computer, and no setting of another program opens a file of it.
os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
for _name in ("GRADIO_ALLOWED_PATHS", "GRADIO_ROOT_PATH"):
    os.environ.pop(_name, None)
# Without a proxy to this computer itself: gradio asks the page once whether it answers.
_direct = ",".join(filter(None, [os.environ.get("no_proxy") or os.environ.get("NO_PROXY"), "127.0.0.1"]))
os.environ |= {"no_proxy": _direct, "NO_PROXY": _direct}
