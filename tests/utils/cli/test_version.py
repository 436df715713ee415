import pytest

from utils.cli import version


@pytest.mark.parametrize(
    ("info", "words"),
    [
        ("", "bfloat16 no"),
        ("vendor_id : GenuineIntel\nflags : avx2 avx512f", "bfloat16 no"),
        ("vendor_id : GenuineIntel\nflags : avx2 avx512_bf16", "bfloat16 slow"),
        ("vendor_id : GenuineIntel\nflags : avx512_bf16 amx_bf16", "bfloat16 yes"),
        ("vendor_id : AuthenticAMD\nflags : avx2 avx512_bf16", "bfloat16 yes"),
        ("CPU implementer : 0x41\nFeatures : asimd bf16", "bfloat16 yes"),
    ],
)
def test_version_says_how_fast_the_processors_bfloat16_is(monkeypatch, info, words):
    monkeypatch.setattr(version, "_cpu_info", lambda: info)
    assert sum(line.startswith("CPU: ") and line.endswith(words) for line in version.version_lines()) == 1
