"""book/scripts: the minutes of a chapter and the contents for Jupyter Book 2."""

import shutil
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "book" / "scripts"))
import minutes  # noqa: E402
import myst  # noqa: E402


def cells(words=0, formulas=0, lines=0, folded=0):
    text = "word " * words + "\n\n$$x + y$$\n\n" * formulas
    return [
        {"cell_type": "markdown", "metadata": {}, "source": text},
        {"cell_type": "code", "metadata": {}, "source": "x = 1\n" * lines},
        {"cell_type": "code", "metadata": {"tags": ["setup"]}, "source": "x = 1\n" * folded},
    ]


def test_minutes_count_words_formulas_and_open_code():
    assert minutes.minutes(cells(words=4000)) == 20
    assert minutes.minutes(cells(words=4000, formulas=50)) == 35
    assert minutes.minutes(cells(words=4000, lines=300)) == 40
    assert minutes.minutes(cells(words=4000, folded=3000)) == 20
    assert minutes.minutes(cells()) == 5


def test_a_head_gets_its_minutes_and_keeps_the_rest():
    head = "# 1. T\n\nCPU: 5 s · Reading: about 0 min · Needs: chapter 9"
    assert minutes.rewrite(head, cells(words=3000)) == head.replace("about 0", "about 15")
    assert minutes.rewrite("# 1. T", cells()) == "# 1. T"


def files(entries):
    for entry in entries:
        if "file" in entry:
            yield entry["file"]
        yield from files(entry.get("children", ()))


def test_jupyter_book_2_has_every_page_in_order():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf8"))
    made = yaml.safe_load(myst.contents(ROOT))
    found = list(files(made["project"]["toc"]))
    assert all((ROOT / name).is_file() for name in found)
    assert len(found) == len(set(found))
    parts = [part["title"] for part in made["project"]["toc"] if "title" in part]
    assert parts == [part["caption"] for part in toc["parts"]]
    assert found[0] == toc["root"] + ".md"
    assert [name.rpartition(".")[0] for name in found if "/api/" not in name] == [
        toc["root"],
        *(page["file"] for part in toc["parts"] for page in part["chapters"]),
    ]


def test_jupyter_book_2_knows_the_repository_once_there_is_one(tmp_path):
    for name in ("_toc.yml", "_config.yml"):
        shutil.copy(ROOT / name, tmp_path)
    assert "github" not in yaml.safe_load(myst.contents(tmp_path))["project"]
    config = tmp_path / "_config.yml"
    config.write_text(config.read_text().replace("github.com/OWNER/eqreg", "github.com/ada/eqreg"))
    made = yaml.safe_load(myst.contents(tmp_path))["project"]
    assert made["github"] == "https://github.com/ada/eqreg"
