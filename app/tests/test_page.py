"""The page: its headers, and that it is whole and needs nothing from elsewhere. What it does: tests/browser."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from checks import check
from fastapi.testclient import TestClient

from genai_inference import page
from genai_inference.api import create_app
from genai_inference.settings import Settings

FOLDER = Path(page.__file__).parent / "page"
FILES = sorted(file.name for file in FOLDER.iterdir())
PATHS = ["/", *(f"/page/{name}" for name in FILES)]


class Tags(HTMLParser):
    """Every tag with its attributes, and the text inside of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.inline = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.found and self.found[-1][0] in ("script", "style"):
            self.inline += data.strip()


@pytest.fixture
def tags() -> Tags:
    return Tags((FOLDER / page.INDEX).read_text())


@pytest.mark.parametrize("path", PATHS)
def test_every_file_has_the_headers_that_protect_it(client: TestClient, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 200
    policy = response.headers["content-security-policy"]
    assert policy.startswith("default-src 'self';")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"
    assert response.headers["content-type"] == page.MEDIA_TYPES[Path(path).suffix or ".html"]
    assert client.head(path).headers["etag"] == response.headers["etag"]


@pytest.mark.parametrize(
    ("sent", "status"),
    [("{}", 304), ("W/{}", 304), ('"other", {}', 304), ('"other"', 200), ("", 200)],
)
def test_what_the_browser_has_is_not_sent_again(client: TestClient, sent: str, status: int) -> None:
    etag = client.get("/").headers["etag"]
    response = client.get("/", headers={"If-None-Match": sent.format(etag)})
    assert response.status_code == status
    assert response.headers["etag"] == etag
    assert bool(response.content) == (status == 200)


@pytest.mark.parametrize("name", ["none.js", "..%2Fapi.py", "%2e%2e/api.py", "__init__.py", ""])
def test_nothing_else_is_served(client: TestClient, name: str) -> None:
    check(client.get(f"/page/{name}"), 404, "Not Found")


def test_the_page_itself_needs_no_key(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"shop {'0' * 64}\n")
    client = TestClient(create_app(Settings(api_keys_file=keys), lambda _: pytest.fail("no model is needed")))
    assert [client.get(path).status_code for path in PATHS] == [200] * len(PATHS)
    assert client.get("/v1/models").status_code == 401


def test_it_is_not_part_of_the_described_api(client: TestClient) -> None:
    assert not [path for path in client.get("/openapi.json").json()["paths"] if path == "/" or "page" in path]


def test_nothing_is_inline(tags: Tags) -> None:
    assert tags.inline == ""
    attributes = {name for _, attrs in tags.found for name in attrs}
    assert not {name for name in attributes if name == "style" or name.startswith("on")}


def test_every_reference_leads_to_a_file_or_a_route(client: TestClient, tags: Tags) -> None:
    references = [attrs[name] for _, attrs in tags.found for name in ("src", "href") if name in attrs]
    assert {"page/main.js", "page/style.css"} <= set(references)
    for reference in references:
        assert reference
        if not reference.startswith("#"):
            assert client.get(f"/{reference}").status_code == 200, reference


def test_every_module_that_is_imported_exists_and_every_file_is_used(tags: Tags) -> None:
    used = {str(attrs.get("src") or attrs.get("href")).removeprefix("page/") for _, attrs in tags.found}
    for file in FOLDER.glob("*.js"):
        imported = re.findall(r'from "\./([^"]+)"', file.read_text())
        assert set(imported) <= set(FILES), file.name
        used.update(imported)
    assert set(FILES) - used == {page.INDEX}


def test_every_id_that_is_looked_up_exists_once(tags: Tags) -> None:
    ids = [attrs["id"] for _, attrs in tags.found if "id" in attrs]
    assert len(ids) == len(set(ids))
    asked = {name for file in FOLDER.glob("*.js") for name in re.findall(r'byId\("([^"]+)"\)', file.read_text())}
    assert asked <= set(ids)


@pytest.mark.parametrize("name", FILES)
def test_nothing_comes_from_elsewhere(name: str) -> None:
    text = (FOLDER / name).read_text().replace("http://www.w3.org/2000/svg", "")  # a name, which nobody fetches
    assert not re.search(r"https?://|//\w+\.\w|@import|url\(|innerHTML|eval\(|localStorage\.", text)
