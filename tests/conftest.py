"""What all tests share: hypothesis' patience, the repository on the path, and what Ray reads when it is imported.

The last two are for this process and for those that tests start. Ray 2.60 reads its authentication mode once,
when its library is loaded, so it must be set before any test module imports it.
"""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent

if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))
_inherited = os.environ.get("PYTHONPATH", "")
if str(ROOT) not in _inherited.split(os.pathsep):
    os.environ["PYTHONPATH"] = os.pathsep.join(part for part in (str(ROOT), _inherited) if part)

# A kernel's first call compiles it, and machines are busy: no example has a deadline. `--hypothesis-profile=long`.
_patient = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("tests", max_examples=60, **_patient)
settings.register_profile("long", max_examples=2_000, **_patient)
settings.load_profile("tests")

# A token of this session's own: Ray would write one to ~/.ray for all to share.
_secrets = Path(tempfile.mkdtemp(prefix="mray-token-"))
atexit.register(shutil.rmtree, _secrets, ignore_errors=True)
_token = _secrets / "token"
_token.touch(mode=0o600)
_token.write_text(secrets.token_hex(32))
os.environ.update(
    RAY_AUTH_MODE="token",
    RAY_AUTH_TOKEN_PATH=str(_token),
    RAY_USAGE_STATS_ENABLED="0",
)

# One for all who ask: a session's fixture that modules import would be made once for each of them.
from tests.s3_server import s3_server  # noqa: E402, F401
