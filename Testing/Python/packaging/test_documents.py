"""README, tutorial and help text: links that lead somewhere, keys and buttons that exist, and what must be said."""

import ast
import re
import xml.etree.ElementTree as ElementTree

import pytest

PANEL = "CalibUncertainty/CalibUncertaintyPanel"


@pytest.fixture
def tutorial(repository):
    return (repository / "Docs" / "Tutorial.md").read_text(encoding="utf-8")


@pytest.fixture
def help_texts(repository):
    """Help text and acknowledgement as they stand in the module's file, and its address of the tutorial."""
    tree = ast.parse((repository / "CalibUncertainty" / "CalibUncertainty.py").read_text(encoding="utf-8"))
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            name = getattr(node.targets[0], "attr", getattr(node.targets[0], "id", ""))
            found[name] = " ".join(n.value for n in ast.walk(node.value) if isinstance(getattr(n, "value", 0), str))
    return found


def documents(repository):
    return [repository / "README.md", *sorted((repository / "Docs").rglob("*.md"))]


def slug(heading):
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors(path):
    return [slug(heading) for heading in re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)]


def dead_links(path):
    """Relative links of a document that lead to no file, or to no heading of it."""
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if "://" in link or link.startswith("mailto:"):
            continue
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    return dead


def test_relative_links_lead_to_files_and_headings(repository):
    assert {path.name: dead_links(path) for path in documents(repository) if dead_links(path)} == {}


def test_a_dead_link_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A heading\n[a](page.md) [b](gone.md) [c](#a-heading) [d](#nowhere) [e](https://x.org)")
    assert dead_links(page) == ["gone.md", "#nowhere"]


def test_the_tutorial_names_every_key_and_no_other(tutorial, repository):
    keys = set()
    for name, variables in (("reviewKeys.py", None), ("compareSection.py", {"HIDE_KEYS", "RAW_KEYS"})):
        for node in ast.parse((repository / PANEL / name).read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple):
                targets = [target.id for target in node.targets[0].elts]
                if variables is None or set(targets) <= variables:
                    keys |= {item.value for item in node.value.elts}
    assert len(keys) >= 9
    assert set(re.findall(r"(?:Alt|Ctrl|Shift)\+[\w+]+", tutorial)) == keys


def test_the_tutorial_names_only_buttons_and_sections_that_the_panel_has(tutorial, repository):
    ui = ElementTree.parse(repository / "CalibUncertainty" / "Resources" / "UI" / "CalibUncertainty.ui")
    shown = {" ".join(node.text.split()).lstrip("✓✗? ") for node in ui.iter("string") if node.text}
    steps = tutorial[tutorial.index("### 1.") :]
    bold = {" ".join(text.split()) for text in re.findall(r"\*\*(.+?)\*\*", steps, re.S)}
    words = {"means", "does not mean", "not trained on", "other", "Calibrated", "NOT CALIBRATED", "Bright means doubt.",
             "Do not only look at the list."}  # fmt: skip
    labels = shown | {text.rstrip(":") for text in shown}
    assert bold - words - labels == set()
    assert len(bold & labels) > 15


def test_what_must_be_said_is_said(tutorial, help_texts):
    for text in (tutorial, help_texts["helpText"]):
        assert "Not a medical device" in text
    assert "no proof" in tutorial


@pytest.mark.parametrize(
    "authors", ["Guo", "Lakshminarayanan", "Kahl", "Jungo", "Mehrtash", "Zhao", "Rousseau", "Malinin", "Isensee"]
)
def test_the_papers_that_are_used_are_acknowledged(help_texts, authors, repository):
    assert authors in help_texts["acknowledgementText"]
    assert authors in (repository / "README.md").read_text(encoding="utf-8")


def test_the_help_text_links_the_tutorial_of_this_repository(help_texts, repository):
    assert "{tutorial}" in help_texts["helpText"]
    cmake = (repository / "CMakeLists.txt").read_text(encoding="utf-8")
    homepage = re.search(r'EXTENSION_HOMEPAGE "(.*?)"', cmake).group(1)
    path = help_texts["TUTORIAL"].removeprefix(f"{homepage}/blob/main/")
    assert path != help_texts["TUTORIAL"]
    assert (repository / path).is_file()
    for word in ("contours", "report", "Calibrate", "Evaluate", "keyboard"):
        assert word in help_texts["helpText"]
