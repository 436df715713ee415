"""Commands in the documentation have flags and values that the scripts take, and links lead to files."""

import ast
import re
import shlex
from pathlib import Path

import pytest

from nets.config import ModelConfig
from utils.cli.app_config import AppConfig
from utils.cli.compare_config import parse_comparison
from utils.cli.errors import UserError
from utils.cli.evaluate_config import EvaluateConfig
from utils.cli.export_config import ExportConfig
from utils.cli.parser import parse_config
from utils.cli.predict_config import PredictConfig
from utils.cli.tool_configs import VERBS
from utils.cli.train_config import TrainConfig
from utils.inference.runtimes import HEADS, IMAGES
from utils.weights import load

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = (".", "docs", "model_data", "VOCdevkit", "benchmarks/results")
PAGES = [page for folder in FOLDERS for page in sorted((ROOT / folder).glob("*.md"))]
CONFIGS = {
    "train.py": TrainConfig,
    "evaluate.py": EvaluateConfig,
    "predict.py": PredictConfig,
    "export.py": ExportConfig,
    "app.py": AppConfig,
}


def commands(text):
    """Yield every command line of ours in the fenced blocks of a page, and those written `inline`."""
    blocks = [block for block in text.split("```")[1::2] if block.startswith(("bash\n", "\n"))]
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    lines += re.findall(r"`(python \w+\.py [^`]*)`", text)
    for line in lines:
        if (
            re.match(r"(python|torchrun .*?) ?(train|evaluate|predict|compare|export|data|app)\.py ", line)
            and "..." not in line
        ):
            yield line


def check(line):
    words = shlex.split(line, comments=True)
    start = next(index for index, word in enumerate(words) if word.endswith(".py"))
    script, *argv = words[start:]
    if argv == ["--version"]:
        return
    if script == "data.py":
        verb, *argv = argv
        parse_config(VERBS[verb].config, argv, prog=f"data.py {verb}", description="", example="")
    elif script == "compare.py":
        parse_comparison(argv, description="", example="")
    else:
        parse_config(CONFIGS[script], argv, prog=script, description="", example="")


def test_a_wrong_flag_would_be_found():
    (line,) = commands("```bash\npython train.py --epohcs 3   # three\n```")
    with pytest.raises(UserError, match="--epochs"):
        check(line)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_are_taken(page):
    for line in commands(page.read_text(encoding="utf-8")):
        check(line)


def anchors(page):
    """Return what links to the headings of a page end in, as GitHub makes it of them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page):
    links = re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", page.read_text(encoding="utf-8"))
    for name, heading in links:
        target = page.parent / name if name else page
        assert target.exists(), name
        assert not heading or heading in anchors(target), f"{name}#{heading}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_of_the_repository_exist(page):
    for name in re.findall(
        r"`((?:tests|benchmarks|docs|nets|utils)/[\w./]+)`", page.read_text(encoding="utf-8")
    ):
        assert (ROOT / name).exists(), name


def test_recipes_of_other_tools_use_our_names():
    """They are not run here: names of ours in them must exist."""
    recipes = (ROOT / "docs/deployment.md").read_text(encoding="utf-8").partition("## TensorRT and LiteRT")[2]
    assert "We have not run them" in recipes
    shapes = re.findall(r"Shapes=(\w+):\d+x3x(\d+)x(\d+)", recipes)
    height, width = map(str, ModelConfig(1).input_size)
    assert shapes == [(IMAGES, height, width)] * 3
    assert [name for name in HEADS if f"`{name}`" in recipes] == list(HEADS)
    script = ast.parse((ROOT / "utils/export/device/detect.py").read_text(encoding="utf-8"))
    functions = {node.name for node in script.body if isinstance(node, ast.FunctionDef)}
    assert {"decode", "suppress"} <= functions
    (code,) = re.findall(r"```python\n(.*?)```", recipes, flags=re.DOTALL)
    ours = [node for node in ast.parse(code).body if isinstance(node, ast.ImportFrom)]
    assert [(node.module, node.names[0].name) for node in ours] == [(load.__name__, load.load_model.__name__)]
    assert {"model", "config"} <= set(load.LoadedModel.__annotations__)
    assert "loaded.model" in code
    assert "loaded.config.input_size" in code
