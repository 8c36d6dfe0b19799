"""What the Extensions Index asks: a catalogue entry, a license, an icon and screenshots that exist, the same facts twice."""

import json
import re
import struct

import pytest


@pytest.fixture
def entry(repository):
    return json.loads((repository / "CalibUncertainty.json").read_text(encoding="utf-8"))


@pytest.fixture
def metadata(repository):
    """EXTENSION_... of the root CMakeLists.txt, with the homepage put in."""
    text = (repository / "CMakeLists.txt").read_text(encoding="utf-8")
    found = dict(re.findall(r'set\(EXTENSION_(\w+) "(.*?)"\)', text))
    found |= dict(re.findall(r'set\(EXTENSION_(DEPENDS) "(.*?)"\)', text))
    return {name: value.replace("${EXTENSION_HOMEPAGE}", found["HOMEPAGE"]) for name, value in found.items()}


def png_size(path):
    header = path.read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n", f"{path.name} is not a PNG"
    return struct.unpack(">II", header[16:24])


def test_the_entry_names_its_schema_and_only_what_the_schema_knows(entry):
    assert entry["$schema"].endswith("slicer-extension-catalog-entry-schema-v1.0.2.json#")
    known = {"$schema", "category", "scm_url", "scm_revision", "scm_type", "build_dependencies", "dicom_support_rule"}
    assert set(entry) <= known | {"build_subdirectory", "enabled", "tier"}
    assert {"$schema", "category", "scm_url"} <= set(entry)
    assert isinstance(entry["tier"], int)
    assert 1 <= entry["tier"] <= 5


def test_the_entry_and_cmake_agree(entry, metadata):
    assert entry["category"] == metadata["CATEGORY"]
    assert entry["build_dependencies"] == metadata["DEPENDS"].split()
    assert entry["scm_url"] == metadata["HOMEPAGE"] + ".git"


def test_the_description_has_no_line_break_and_no_separator(metadata):
    assert "\n" not in metadata["DESCRIPTION"]
    assert ";" not in metadata["DESCRIPTION"]  # CMake would make a list of it


@pytest.mark.parametrize("name", ["ICONURL", "SCREENSHOTURLS"])
def test_the_pictures_that_are_promised_exist(metadata, repository, entry, name):
    for url in metadata[name].split():
        start = f"{metadata['HOMEPAGE']}/raw/{entry['scm_revision']}/"
        assert url.startswith(start)
        path = repository / url.removeprefix(start)
        assert path.is_file(), f"{name} names {path.relative_to(repository)}, which does not exist"
        assert min(png_size(path)) >= 64


def test_the_pictures_and_files_that_the_readme_links_exist(repository):
    text = (repository / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#\s]+)", text)
    assert links
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (repository / link).exists()] == []


def test_the_icon_is_square_and_the_same_in_module_and_extension(repository):
    extension = repository / "Resources" / "CalibUncertainty.png"
    module = repository / "CalibUncertainty" / "Resources" / "Icons" / "CalibUncertainty.png"
    assert png_size(extension) == (128, 128)
    assert extension.read_bytes() == module.read_bytes()


def test_the_license_is_apache_two(repository):
    text = (repository / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "Version 2.0" in text
